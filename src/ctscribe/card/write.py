"""The card as JSON, Markdown and one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ctscribe import RESEARCH_USE
from ctscribe.card.score import METRICS
from ctscribe.card.views import VIEWS
from ctscribe.figures import Estimate, card_figure, write_figure
from ctscribe.files import write_json, write_text
from ctscribe.tables import UNDEFINED, Cell, Table, to_markdown

VIEW_TITLES = {
    "real": "The scan itself",
    "noise": "Gaussian noise",
    "blank": "Blank (air)",
    "other_patient": "Another patient's",
    "shuffled": "Shuffled slices",
    "dropped": "Dropped slices",
}
"""Row titles by view."""

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
    """Writes ``card.json``, ``card.md`` and ``card.png``."""
    write_figure(folder / "card.png", _figure(card))
    write_text(folder / "card.md", card_markdown(card))
    write_json(folder / "card.json", card)


def card_markdown(card: Mapping[str, Any]) -> str:
    """One page: the score, the two tables of all views, and Coverage per finding.

    Args:
        card: What `card.make` returns.
    """
    n = card["n"]
    shown = [f"- {VIEW_TITLES[view]}: {what}." for view, what in VIEWS.items() if view != "real"]
    return "\n".join(
        [
            "# Image-dependence card",
            "",
            f"**{RESEARCH_USE}**",
            "",
            f"Weights `{card['weights_sha256'][:12]}`, {card['split']} split: {n['scans']} scans "
            f"of {n['patients']} patients. In brackets the 95 % interval over {n['resamples']} "
            f"resamples of patients (seed {n['seed']}).",
            "",
            f"**{headline(card)}**",
            "",
            "![Every view beside the scan itself](card.png)",
            "",
            to_markdown(_views_table("The true report, given each view", card, _FIT)),
            to_markdown(_views_table("Reports written from each view", card, _WRITTEN)),
            to_markdown(_findings_table(card)),
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


def _views_table(title: str, card: Mapping[str, Any], metrics: Mapping[str, str]) -> Table:
    rows = [
        (VIEW_TITLES[view], *(_cell(scores.get(metric)) for metric in metrics))
        for view, scores in card["views"].items()
    ]
    notes = tuple(f"{title}: {METRICS[metric]}." for metric, title in metrics.items())
    return Table(title, ("Shown", *metrics.values()), tuple(rows), notes)


def _findings_table(card: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{row['finding']} ({row['positives']})",
            *(_cell(row["views"][view]["coverage"]) for view in card["views"]),
        )
        for row in sorted(card["per_finding"], key=lambda row: -row["positives"])
    ]
    columns = ("Finding", *(VIEW_TITLES[view] for view in card["views"]))
    notes = ("In round brackets the number of scans whose reference states the finding.",)
    return Table("Coverage of each finding", columns, tuple(rows), notes)


def _figure(card: Mapping[str, Any]) -> Figure:
    panels = {
        _TITLES[metric]: {
            VIEW_TITLES[view]: estimate
            for view, scores in card["views"].items()
            if (estimate := _estimate(scores.get(metric)))
        }
        for metric in _DRAWN
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


def _cell(score: Mapping[str, float | None] | None) -> Cell | str:
    estimate = _estimate(score)
    return Cell(*estimate) if estimate else UNDEFINED
