"""The image-dependence card as Markdown and one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ctscribe import RESEARCH_USE
from ctscribe.base.figures import Estimate, write_figure
from ctscribe.base.files import write_text
from ctscribe.measure.card_scores import METRICS
from ctscribe.show.figures import card_figure
from ctscribe.show.tables import Cell, Table, cell_of, to_markdown

VIEW_TITLES = {
    "real": "The scan itself",
    "noise": "Gaussian noise",
    "blank": "Blank (air)",
    "other_patient": "Another patient's",
    "shuffled": "Shuffled slices",
    "dropped": "Dropped slices",
}
"""Row titles by view."""

_INSTEAD = {
    "noise": "noise",
    "blank": "air",
    "other_patient": "another patient's scan",
    "shuffled": "its slices in another order",
    "dropped": "half of its slices",
}
"""What is shown, within a sentence."""

_FIT = {"cross_entropy": "Cross entropy", "ce_gap": "Gap", "perplexity": "Perplexity"}
_WRITTEN = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "bleu_4": "BLEU-4 to real",
    "label_agreement": "Label agreement",
    "dependence": "Dependence",
}
_TITLES = _FIT | _WRITTEN
_DRAWN = ("cross_entropy", "coverage", "f1", "bleu_4")


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes ``card.md`` and ``card.png`` beside ``card.json``."""
    write_figure(folder / "card.png", _figure(card))
    write_text(folder / "card.md", card_markdown(card))


def card_markdown(card: Mapping[str, Any]) -> str:
    """One page: the score, what matters, the tables of all views, and every finding.

    Args:
        card: What `measure.card` returns.
    """
    n = card["n"]
    views = card["definitions"]["views"]
    shown = [f"- {VIEW_TITLES[view]}: {what}." for view, what in views.items() if view != "real"]
    fit = {metric: title for metric, title in _FIT.items() if metric in _measured(card)}
    tables = [
        *([_views_table("The true report, given each view", card, fit)] if fit else []),
        _views_table("Reports written from each view", card, _WRITTEN),
        _findings_table(card),
    ]
    return "\n".join(
        [
            "# Image-dependence card",
            "",
            f"**{RESEARCH_USE}**",
            "",
            f"{_identity(card)}, {_scored(card)}: {n['scans']} scans of {n['patients']} "
            f"patients. In brackets the 95 % interval over {n['resamples']} resamples of patients "
            f"(seed {n['seed']}). Findings read by: {card['definitions']['labels']}.",
            "",
            f"**{headline(card)}**",
            "",
            *_what_matters(card),
            "",
            "![Every view beside the scan itself](card.png)",
            "",
            *map(to_markdown, tables),
            "## What is shown instead of the scan",
            "",
            *shown,
            "",
            "Precision, F1 and label agreement of every finding are in `card.json`.",
            "",
        ]
    )


def headline(card: Mapping[str, Any]) -> str:
    """The score in a sentence."""
    found = card["dependence"]
    if found["value"] is None:
        return "Dependence is undefined: the references state no finding, or all the same."
    # A bootstrap bound of exactly 0 does not lie above it.
    verdict = (
        "the model looks at the scan"
        if (found["low"] or 0) > 0
        else "the model cannot be told from one that does not look"
    )
    value = Cell(found["value"], found["low"], found["high"])
    return f"Dependence {value}, where reciting is 0 and perfection 1: {verdict}."


def _measured(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured under a view that is not the scan itself."""
    scores: Mapping[str, Any] = card["views"]["other_patient"]
    return scores


def _scored(card: Mapping[str, Any]) -> str:
    return f"{card['split']} split" if card["split"] else "all references given"


def _identity(card: Mapping[str, Any]) -> str:
    if "weights_sha256" in card:
        return f"Weights `{card['weights_sha256'][:12]}`"
    return f"Reports `{card['predictions_sha256']['real'][:12]}`"


def _what_matters(card: Mapping[str, Any]) -> list[str]:
    """Two sentences: what is shown when the findings fit worse, and when they do not."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for view, instead in _INSTEAD.items():
        low = card["views"].get(view, {}).get("dependence", {}).get("low")
        if low is not None:
            told[low > 0].append(instead)
    ends = {True: "the findings written fit the reference worse", False: "no loss can be shown"}
    return [f"- Shown {', '.join(told[loss])}: {ends[loss]}." for loss in told if told[loss]]


def _views_table(title: str, card: Mapping[str, Any], metrics: Mapping[str, str]) -> Table:
    rows = [
        (VIEW_TITLES[view], *(cell_of(scores.get(metric)) for metric in metrics))
        for view, scores in card["views"].items()
    ]
    notes = tuple(f"{title}: {METRICS[metric]}." for metric, title in metrics.items())
    return Table(title, ("Shown", *metrics.values()), tuple(rows), notes)


def _findings_table(card: Mapping[str, Any]) -> Table:
    with_gap = "ce_gap" in _measured(card)
    rows = [
        (
            f"{row['finding']} ({row['positives']})",
            *(cell_of(row["views"][view]["coverage"]) for view in card["views"]),
            *([cell_of(row["views"]["other_patient"]["ce_gap"])] if with_gap else []),
        )
        for row in sorted(card["per_finding"], key=lambda row: -row["positives"])
    ]
    columns = ["Finding", *(VIEW_TITLES[view] for view in card["views"])]
    notes = ["In round brackets the number of scans whose reference states the finding."]
    if with_gap:
        columns.append("Gap")
        notes.append("Gap: of the reports that state the finding, on another patient's scan.")
    return Table("Coverage of each finding", tuple(columns), tuple(rows), tuple(notes))


def _figure(card: Mapping[str, Any]) -> Figure:
    panels = {
        _TITLES[metric]: {
            VIEW_TITLES[view]: estimate
            for view, scores in card["views"].items()
            if (estimate := _estimate(scores.get(metric)))
        }
        for metric in _DRAWN
        if metric in _measured(card)
    }
    recall = {
        VIEW_TITLES[view]: {
            row["finding"]: estimate
            for row in card["per_finding"]
            if (estimate := _estimate(row["views"][view]["coverage"]))
        }
        for view in ("real", "other_patient")
    }
    positives = {row["finding"]: row["positives"] for row in card["per_finding"]}
    return card_figure(headline(card), panels, recall, positives)


def _estimate(score: Mapping[str, float | None] | None) -> Estimate | None:
    if score is None or score["value"] is None or score["low"] is None or score["high"] is None:
        return None
    return score["value"], score["low"], score["high"]
