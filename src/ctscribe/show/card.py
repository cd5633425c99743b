"""The image-dependence card as one page of Markdown and one figure.

In: what `measure.card` returns, or ``card.json``. Out: ``card.md`` and ``card.png``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.figures import (
    GREY,
    MEANINGS,
    Estimate,
    bars,
    name_findings,
    style,
    whiskers,
    write_figure,
)
from ctscribe.base.files import write_text
from ctscribe.measure.card_scores import FEWEST_PATIENTS, Verdict
from ctscribe.measure.card_views import KEPT
from ctscribe.show.tables import Table, Value, estimate_of, to_markdown, value_of

VIEW_TITLES = {
    "real": "The scan itself",
    "noise": "Gaussian noise",
    "blank": "Blank (air)",
    "other_patient": "Another patient's",
    "other_on_own_grid": "Another's, own grid",
    "moved": "Voxels moved",
    "texture": "Noise kept alone",
    KEPT: "Own, another's grid",
    "shuffled": "Shuffled slices",
    "dropped": "Dropped slices",
}
"""Row titles by view."""

_INSTEAD = {
    "noise": "noise",
    "blank": "air",
    "other_patient": "another patient's scan",
    "other_on_own_grid": "another patient's scan on its own grid",
    "moved": "its voxels in another order",
    "texture": "a phantom's chest under its noise",
    KEPT: "the scan on another's grid",
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
_DRAWN = ("cross_entropy", "f1", "label_agreement", "dependence")
OWN, OTHER = MEANINGS["own scan"][0], MEANINGS["another scan"][0]
_VERDICTS: dict[Verdict, str] = {
    "open": "the model cannot be told from one that does not look",
    "looks so far": "the model looks at the scan, as far as the views that were shown can tell",
    "looks": "the model looks at the scan",
}


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
    scored = f"{card['split']} split" if card["split"] else "all references given"
    views = card["definitions"]["views"]
    shown = [
        f"- {VIEW_TITLES[view]} (`{view}`): {what}."
        for view, what in views.items()
        if view != "real"
    ]
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
            f"{_identity(card)}, {scored}: {n['scans']} scans of {n['patients']} "
            f"patients. In brackets the 95 % interval over patients. Findings read by: "
            f"{card['definitions']['labels']}.",
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
    """The score in a sentence, or why there is none."""
    found, verdict = card["dependence"], card["verdict"]
    if verdict == "too few":
        return (
            f"Too few patients for a verdict: {card['n']['patients_with_findings']} have a "
            f"finding, and {FEWEST_PATIENTS} are needed."
        )
    if verdict == "undefined":
        return "Dependence is undefined: neither references nor reports state a finding."
    value = Value(found["value"], found["low"], found["high"])
    return (
        f"Dependence {value}, where reciting is 0 and perfection 1, least when shown "
        f"{_INSTEAD[found['against']]}: {_VERDICTS[verdict]}."
    )


def card_figure(
    title: str,
    panels: Mapping[str, Mapping[str, Estimate]],
    recall: Mapping[str, Mapping[str, Estimate]],
    num_positive: Mapping[str, int],
) -> Figure:
    """What a model makes of its scans and of what is shown instead of them.

    Args:
        panels: Metric to {what was shown: estimate}, one panel each. The first has every view
            and gives their order. One with a value beyond 1 has a scale of its own,
            logarithmic where a tenth of the largest value is larger than the smallest.
        recall: Two views' {finding: Coverage}, drawn as bars; findings that are never true are
            absent.
        num_positive: Finding to the number of scans whose reference states it.
    """
    findings = sorted(next(iter(recall.values())), key=lambda name: (-num_positive[name], name))
    shown = list(next(iter(panels.values())))
    height = 0.3 * len(shown) + 0.9, 0.3 * len(findings) + 0.9
    with style():
        figure = Figure(figsize=(8.2, sum(height) + 0.7), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=height)
        upper, lower = (figure.add_subfigure(rows[i]) for i in (0, 1))
        row_of_axes = upper.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (metric, estimates) in zip(row_of_axes, panels.items(), strict=True):
            _dots(axes, shown, estimates)
            axes.set_title(metric, fontsize=9)
        for axes, estimates in zip(row_of_axes, panels.values(), strict=True):
            if all(0 <= estimate[0] <= 1 for estimate in estimates.values()):
                axes.set_xlim(-0.02, 1.02)
            else:
                _spread(axes, estimates)
        axes = lower.subplots()
        for (view, estimates), offset, colour in zip(
            recall.items(), (-0.19, 0.19), (OWN, OTHER), strict=True
        ):
            bars(axes, findings, estimates, offset, colour, view)
        name_findings(axes, findings, num_positive)
        axes.set_xlabel("Coverage with 95 % interval (in brackets: positive scans)")
        lower.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.suptitle(title, fontsize=9.5, fontweight="bold", x=0.01, ha="left", wrap=True)
        figure.supxlabel(RESEARCH_USE, fontsize=7.5, color=GREY)
    return figure


def _measured(card: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured under a view that is not the scan itself."""
    scores: Mapping[str, Any] = card["views"]["other_patient"]
    return scores


def _identity(card: Mapping[str, Any]) -> str:
    if "weights_sha256" in card:
        return f"Weights `{card['weights_sha256'][:12]}`"
    return f"Reports `{card['predictions_sha256']['real'][:12]}`"


def _what_matters(card: Mapping[str, Any]) -> list[str]:
    """What is shown when the findings fit worse and when they do not, and what was not shown."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for view, instead in _INSTEAD.items():
        low = card["views"].get(view, {}).get("dependence", {}).get("low")
        if low is not None and view != KEPT:
            told[low > 0].append(instead)
    ends = {True: "the findings written fit the reference worse", False: "no loss can be shown"}
    lines = [f"- Shown {', '.join(told[loss])}: {ends[loss]}." for loss in told if told[loss]]
    if KEPT in card["views"]:
        agreement = value_of(card["views"][KEPT]["label_agreement"])
        lines.append(
            "- Shown the scan with the shape, spacing and place of another: its findings agree "
            f"with those of the scan itself to {agreement}, where 1 is the same."
        )
    if card["not_shown"]:
        lines.append(
            f"- Not shown: {', '.join(_INSTEAD[view] for view in card['not_shown'])}. The verdict "
            "is weaker: who reads what only these views take away is not found out. They need "
            "volumes, as `ctscribe prepare --keep all` keeps them, and "
            "`--min-dependence` needs these views."
        )
    return lines


def _views_table(title: str, card: Mapping[str, Any], metrics: Mapping[str, str]) -> Table:
    rows = [
        (VIEW_TITLES[view], *(value_of(scores.get(metric)) for metric in metrics))
        for view, scores in card["views"].items()
    ]
    told = card["definitions"]["metrics"]
    notes = tuple(f"{title}: {told[metric]}." for metric, title in metrics.items())
    return Table(title, ("Shown", *metrics.values()), tuple(rows), notes)


def _findings_table(card: Mapping[str, Any]) -> Table:
    with_gap = "ce_gap" in _measured(card)
    rows = [
        (
            f"{row['finding']} ({row['positives']})",
            *(value_of(row["views"][view]["coverage"]) for view in card["views"]),
            *([value_of(row["views"]["other_patient"]["ce_gap"])] if with_gap else []),
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
            if (estimate := estimate_of(scores.get(metric)))
        }
        for metric in _DRAWN
        if metric in _measured(card)
    }
    recall = {
        VIEW_TITLES[view]: {
            row["finding"]: estimate
            for row in card["per_finding"]
            if (estimate := estimate_of(row["views"][view]["coverage"]))
        }
        for view in ("real", "other_patient")
    }
    positives = {row["finding"]: row["positives"] for row in card["per_finding"]}
    return card_figure(headline(card), panels, recall, positives)


def _spread(axes: Axes, estimates: Mapping[str, Estimate]) -> None:
    low = min(estimate[1] for estimate in estimates.values())
    high = max(estimate[2] for estimate in estimates.values())
    if 0 < low < 0.1 * high:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")


def _dots(axes: Axes, rows: list[str], estimates: Mapping[str, Estimate]) -> None:
    """One row each; the first is the measure of the others and is drawn as a line through them."""
    for row, name in enumerate(rows):
        if name in estimates:
            estimate = estimates[name]
            axes.errorbar(
                [estimate[0]],
                [row],
                xerr=whiskers([estimate]),
                color=OTHER if row else OWN,
                marker="o",
                markersize=4.5,
                capsize=2,
                elinewidth=0.9,
            )
    if rows[0] in estimates:
        axes.axvline(estimates[rows[0]][0], color=OWN, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
