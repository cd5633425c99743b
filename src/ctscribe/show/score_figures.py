"""Scores as figures with captions, for an experiment and for one run.

In: what `scores.evaluate` returns, Table 2, and the losses of an experiment's cells.
Out: PNG with a sentence that says what to see in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from matplotlib.figure import Figure

from ctscribe.base.figures import (
    MEANINGS,
    Estimate,
    bars,
    darken,
    image_bytes,
    line,
    name_findings,
    style,
)
from ctscribe.base.files import read_json
from ctscribe.base.grid import TITLES, Cell
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import read_rows
from ctscribe.learn.train.run_log import MetricsRow, loss_figure
from ctscribe.show.score_tables import LIKENESS, Scores
from ctscribe.show.tables import Table, Value, estimate_of

SIZES = ("< 3 mm", "< 6 mm", "6–8 mm", "> 8–30 mm", "> 30 mm", "unmeasured")
"""Strata by the largest nodule of the reference, in order; those below 3 mm also count below 6."""

_CURVES = ("Coverage", "Precision", "BLEU-4")


@final
@dataclass(frozen=True)
class CaptionedFigure:
    """A figure as PNG bytes; the caption says what to see in it."""

    caption: str
    png: bytes
    dark_png: bytes
    """The same on dark ground."""


def experiment_figures(
    weights: Table, folders: Mapping[Cell, Path], recipe: Recipe
) -> list[CaptionedFigure]:
    """β curve, nodule sizes, likeness, bars of each variant's findings, and all loss curves.

    Args:
        weights: Table 2.
        folders: Of all cells; figures show those of the first training seed.
    """
    seed, beta = recipe.experiment.seeds[0], recipe.objective.beta
    first = {cell: folder for cell, folder in folders.items() if cell.seed == seed}
    scores = {
        TITLES[cell.variant]: read_json(folder / "scores.json")
        for cell, folder in first.items()
        if cell.beta in (0.0, beta)
    }
    figures = []
    if curves := beta_curves(weights, recipe.experiment.betas):
        drawn = beta_figure(curves, recipe.experiment.beta_strategy)
        figures.append(captioned("Scores over the weight of the negatives.", drawn))
    figures += _side_by_side(scores, f" (seed {seed})")
    figures += [_findings(title, each, f" (seed {seed})") for title, each in scores.items()]
    for cell, folder in first.items():
        figures.append(loss_curve(f"{cell.name}: loss", folder / "train"))
    return figures


def loss_curve(title: str, run_dir: Path) -> CaptionedFigure:
    """Of a training run, from its ``metrics.jsonl``."""
    rows = read_rows(run_dir / "metrics.jsonl", MetricsRow)
    return captioned(f"{title} over the updates.", loss_figure(rows))


def run_figures(title: str, scores: Scores) -> list[CaptionedFigure]:
    """Per-finding bars, nodule sizes and likeness of one run."""
    return [_findings(title, scores, ""), *_side_by_side({title: scores}, "")]


def beta_curves(weights: Table, betas: Sequence[float]) -> dict[str, dict[float, Estimate]]:
    """Column → {β: estimate} from Table 2, whose first rows are the weights in ascending order."""
    curves: dict[str, dict[float, Estimate]] = {}
    for beta, row in zip(sorted(set(betas)), weights.rows, strict=False):
        for column, value in zip(weights.columns, row, strict=True):
            estimate = estimate_of(vars(value)) if isinstance(value, Value) else None
            if column in _CURVES and estimate:
                curves.setdefault(column, {})[beta] = estimate
    return curves


def nodule_sizes(scores: Scores) -> dict[str, tuple[int, Estimate | None]]:
    """Stratum by nodule size, in order → scans, and Coverage of nodules where it is defined."""
    rows = {
        row["stratum"]: (row["scans"], estimate_of(row["nodule_coverage"]))
        for row in scores["strata"]
        if row["grouping"] in ("nodule size", "tiny nodule")
    }
    return {size: rows[size] for size in SIZES if size in rows}


def beta_figure(curves: Mapping[str, Mapping[float, Estimate]], strategy: str) -> Figure:
    """Scores over the weight of the negatives, the picture of Table 2.

    Args:
        curves: Metric to {β: estimate}, up to four metrics.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for metric, curve in curves.items():
            betas = sorted(curve)
            line(axes, betas, [curve[beta] for beta in betas], MEANINGS[metric], metric)
        axes.set_xticks(sorted({beta for curve in curves.values() for beta in curve}))
        axes.set_xlabel(f"β, weight of the {strategy} negatives")
        axes.set_ylabel("Score, with 95 % interval")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def strata_figure(
    curves: Mapping[str, Mapping[str, Estimate]], num_scans: Mapping[str, int]
) -> Figure | None:
    """Coverage over groups of scans, one curve per system; None where no group has a score.

    Args:
        curves: System to {stratum: estimate}, up to four systems.
        num_scans: Strata in the order wanted, with their sizes; those without a score are left
            out.
    """
    strata = [name for name in num_scans if any(name in curve for curve in curves.values())]
    if not strata:
        return None
    with style():
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        shift = 0.12
        for number, system in enumerate(curves):
            curve, beside = curves[system], shift * (number - (len(curves) - 1) / 2)
            shown = [place for place, name in enumerate(strata) if name in curve]
            estimates = [curve[strata[place]] for place in shown]
            line(axes, [place + beside for place in shown], estimates, MEANINGS[system], system)
        axes.set_xticks(range(len(strata)), [f"{name}\n({num_scans[name]})" for name in strata])
        axes.set_xlim(-0.5, len(strata) - 0.5)
        axes.set_xlabel("Largest nodule (in brackets: scans)")
        axes.set_ylabel("Coverage, with 95 % interval")
        axes.set_ylim(0, 1.02)
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def per_finding_figure(
    recall: Mapping[str, Estimate],
    precision: Mapping[str, Estimate],
    num_positive: Mapping[str, int],
) -> Figure:
    """Recall and precision of each finding with intervals, most frequent finding on top.

    Args:
        recall: Finding to its recall in [0, 1].
        precision: Finding to its precision; one that was never predicted is absent and has no bar.
        num_positive: Finding to the number of scans whose reference states it.
    """
    findings = sorted(recall, key=lambda name: (-num_positive[name], name))
    with style():
        figure = Figure(figsize=(6.2, 0.9 + 0.32 * len(findings)), layout="constrained")
        axes = figure.subplots()
        bars(axes, findings, recall, -0.19, MEANINGS["Coverage"][0], "Recall")
        bars(axes, findings, precision, 0.19, MEANINGS["Precision"][0], "Precision")
        name_findings(axes, findings, num_positive)
        axes.set_xlabel("Share of scans with 95 % interval (in brackets: positive scans)")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def likeness_figure(sets: Mapping[str, Mapping[str, float]]) -> Figure:
    """Measures of likeness in [0, 1] as bars, one row of bars per set of reports.

    Args:
        sets: Set of reports to {measure: value}; every set has the measures of the first, up to
            three sets beside the references, which come first and are drawn in grey.
    """
    measures = list(next(iter(sets.values())))
    height = 0.8 / len(sets)
    with style():
        figure = Figure(figsize=(6.2, 1.1 + 0.3 * len(measures) * len(sets)), layout="constrained")
        axes = figure.subplots()
        for number, (title, values) in enumerate(sets.items()):
            places = [row + height * (number - (len(sets) - 1) / 2) for row in range(len(measures))]
            lengths, colour = [values[name] for name in measures], MEANINGS[title][0]
            drawn = axes.barh(places, lengths, 0.9 * height, color=colour, label=title)
            axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
        axes.set_yticks(range(len(measures)), measures)
        axes.set_ylim(len(measures) - 0.5, -0.5)
        axes.set_xlim(0, 1.08)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("0: all differ, 1: all are the same")
        figure.legend(loc="outside upper left", ncols=4, frameon=False)
    return figure


def captioned(caption: str, figure: Figure) -> CaptionedFigure:
    """A figure as pages show it; it is dark afterwards."""
    light = image_bytes(figure, "png")
    darken(figure)
    return CaptionedFigure(caption, light, image_bytes(figure, "png"))


def _findings(title: str, scores: Scores, detail: str) -> CaptionedFigure:
    rows = scores["per_finding"]
    recall, precision = (
        {row["finding"]: found for row in rows if (found := estimate_of(row[metric]))}
        for metric in ("coverage", "precision")
    )
    positives = {row["finding"]: row["true_positives"] + row["false_negatives"] for row in rows}
    caption = f"{title}: recall and precision of every finding{detail}."
    return captioned(caption, per_finding_figure(recall, precision, positives))


def _side_by_side(scores: Mapping[str, Scores], detail: str) -> list[CaptionedFigure]:
    """Nodule sizes, where there are any, and likeness; one curve or row of bars per system."""
    figures = []
    sizes = {title: nodule_sizes(each) for title, each in scores.items()}
    coverage = {
        title: {size: found for size, (_, found) in each.items() if found is not None}
        for title, each in sizes.items()
    }
    num_scans = {size: scans for each in sizes.values() for size, (scans, _) in each.items()}
    drawn = strata_figure(coverage, num_scans)
    if drawn is not None:
        caption = f"Coverage of lung nodules by their size in the reference{detail}."
        figures.append(captioned(caption, drawn))
    sets = {"References": next(iter(scores.values()))["template"]["references"]}
    sets |= {title: each["template"]["predictions"] for title, each in scores.items()}
    likeness = likeness_figure(
        {
            title: {label: template[name] for name, label in LIKENESS.items()}
            for title, template in sets.items()
        }
    )
    return [*figures, captioned(f"How much of the reports is one report{detail}.", likeness)]
