"""The scoreboard's figures, from the tables and from what the cells left behind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ctscribe.base.figures import Estimate, image_bytes
from ctscribe.base.files import read_json
from ctscribe.base.grid import PlannedRun
from ctscribe.base.recipe import Recipe
from ctscribe.show.figures import (
    beta_figure,
    likeness_figure,
    per_finding_figure,
    strata_figure,
)
from ctscribe.show.score_tables import LIKENESS
from ctscribe.show.scoreboard_page import Plot
from ctscribe.show.tables import Cell as Score
from ctscribe.show.tables import Table

SIZES = ("< 3 mm", "< 6 mm", "6–8 mm", "> 8–30 mm", "> 30 mm", "unmeasured")
"""Strata by the largest nodule of the reference, in order; those below 3 mm also count below 6."""

Scores = Mapping[str, Any]
"""What `evaluate` returns."""

_CURVES = ("Coverage", "Precision", "BLEU-4")


def board_plots(
    tables: Sequence[Table], cells: Mapping[PlannedRun, Path], recipe: Recipe
) -> list[Plot]:
    """β curve, nodule sizes, likeness, bars of each variant's findings, and all loss curves.

    Args:
        tables: Tables 1 and 2.
        cells: With their folders; figures show those of the first training seed.
        recipe: The experiment's.
    """
    seed, beta = recipe.experiment.seeds[0], recipe.objective.beta
    first = {cell: folder for cell, folder in cells.items() if cell.seed == seed}
    titles = {"origin": "Origin", "gauss": "Ours-Gauss", "heter": "Ours-Heter"}
    scores = {
        titles[cell.strategy]: read_json(folder / "scores.json")
        for cell, folder in first.items()
        if cell.beta in (0.0, beta)
    }
    plots = []
    if curves := _beta_curves(tables[1]):
        figure = beta_figure(curves, recipe.experiment.beta_strategy)
        plots.append(Plot("Scores over the weight of the negatives.", image_bytes(figure, "png")))
    plots += _compared(scores, f" (seed {seed})")
    for title, each in scores.items():
        plots.append(_findings_plot(title, each, f" (seed {seed})"))
    for cell, folder in first.items():
        curve = folder / "train" / "loss_curve.png"
        plots.append(Plot(f"{cell.name}: loss over the updates.", curve.read_bytes()))
    return plots


def run_plots(title: str, scores: Scores) -> list[Plot]:
    """Per-finding bars, nodule sizes and likeness of one run."""
    return [_findings_plot(title, scores, ""), *_compared({title: scores}, "")]


def _compared(scores: Mapping[str, Scores], detail: str) -> list[Plot]:
    """Nodule sizes, where there are any, and likeness; systems side by side."""
    plots = []
    sizes = strata_figure(
        {title: _by_size(each["strata"]) for title, each in scores.items()},
        {stratum: n for each in scores.values() for stratum, n in _size_counts(each).items()},
    )
    if sizes is not None:
        caption = f"Coverage of lung nodules by their size in the reference{detail}."
        plots.append(Plot(caption, image_bytes(sizes, "png")))
    sets = {"References": next(iter(scores.values()))["template"]["references"]} | {
        title: each["template"]["predictions"] for title, each in scores.items()
    }
    likeness = likeness_figure(
        {
            title: {label: template[name] for name, label in LIKENESS.items()}
            for title, template in sets.items()
        }
    )
    caption = f"How much of the reports is one report{detail}."
    return [*plots, Plot(caption, image_bytes(likeness, "png"))]


def _findings_plot(title: str, scores: Scores, detail: str) -> Plot:
    caption = f"{title}: recall and precision of every finding{detail}."
    return Plot(caption, image_bytes(_finding_bars(scores["per_finding"]), "png"))


def _beta_curves(table: Table) -> dict[str, dict[float, Estimate]]:
    """Column → {β: estimate} from the rows titled ``β = …``."""
    curves: dict[str, dict[float, Estimate]] = {}
    for name, *row in table.rows:
        if not str(name).startswith("β = "):
            continue
        for column, score in zip(table.columns[1:], row, strict=True):
            if column in _CURVES and isinstance(score, Score):
                beta = float(str(name).removeprefix("β = "))
                curves.setdefault(column, {})[beta] = (score.value, score.low, score.high)
    return curves


def _finding_bars(rows: Sequence[Mapping[str, Any]]) -> Figure:
    estimates = {
        metric: {row["finding"]: found for row in rows if (found := _estimate(row[metric]))}
        for metric in ("coverage", "precision")
    }
    positives = {row["finding"]: row["true_positives"] + row["false_negatives"] for row in rows}
    return per_finding_figure(estimates["coverage"], estimates["precision"], positives)


def _by_size(strata: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    return {
        row["stratum"]: found
        for row in _size_rows(strata)
        if (found := _estimate(row["nodule_coverage"]))
    }


def _size_counts(scores: Mapping[str, Any]) -> dict[str, int]:
    return {row["stratum"]: row["scans"] for row in _size_rows(scores["strata"])}


def _size_rows(strata: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    rows = [row for row in strata if row["grouping"] in ("nodule size", "tiny nodule")]
    known = [row for row in rows if row["stratum"] in SIZES]
    return sorted(known, key=lambda row: SIZES.index(row["stratum"]))


def _estimate(score: Mapping[str, float | None]) -> Estimate | None:
    value, low, high = (score[bound] for bound in ("value", "low", "high"))
    return None if value is None or low is None or high is None else (value, low, high)
