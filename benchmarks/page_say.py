"""The page of what makes the writer say what it sees, from the raw files of its cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import PAGES, Cell, Draws, Study, bounds, shown, table, weights
from benchmarks.writers import drawn_scores
from ctscribe.base.figures import MARKERS, new_figure, style, write_figure

ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "cues": ("pairs.strategy=origin", "objective.beta=0", "model.cues=true"),
    "heter": ("pairs.strategy=heter",),
    "gauss": ("pairs.strategy=gauss",),
    "drawn": ("pairs.strategy=origin", "objective.beta=0"),
}
"""What each arm changes; the paper's two keep the tiny recipe's β = 0.1 and cap of 3 nats."""
_WAYS = {"plain": "", "mean": " + mean volume", "others": " + 8 others"}
NAMES = {(arm, way): arm + told for arm in ARMS if arm != "drawn" for way, told in _WAYS.items()}
NAMES |= {
    ("drawn", "first"): "origin, one drawn",
    ("drawn", "best"): "origin, of 4 drawn the likeliest by the queries",
}
"""(arm, way of writing) → as the page calls it."""
METRICS = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "f1_macro": "F1, macro",
    "label_accuracy": "Accuracy",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
}
OURS, BASE = ("cues", "mean"), ("origin", "plain")
Scores = Mapping[tuple[str, str], Mapping[str, Draws]]
"""(arm, way) → metric → draws, the mean of the seeds that have ended."""


def page(study: Study) -> dict[str, Any]:
    cells = study.ended()
    seeds = {cell["seed"] for cell in cells.get("origin", [])}
    seeds &= {cell["seed"] for cell in cells.get("cues", [])}
    if not seeds:
        raise SystemExit("Origin and cues must have ended with one seed at least.")
    paired = {arm: [cell for cell in runs if cell["seed"] in seeds] for arm, runs in cells.items()}
    scores = {
        (arm, way): mean_scores([_way_scores(cell, way) for cell in paired[arm]])
        for arm, way in NAMES
        if paired.get(arm)
    }
    by_threshold = [cell["curve"] for cell in paired["cues"]]
    curves = {kind: curve_scores(by_threshold, kind) for kind in ("told", "template")}
    write_figure(PAGES / "say.png", _figure(scores, curves))
    missing = ", ".join(f"{arm} of seed {seed}" for arm, seed in study.missing())
    patients = paired["origin"][0]["ways"]["plain"]["test"]["patient"].split()
    return {
        "num_scans": len(patients),
        "num_patients": len(set(patients)),
        "missing": f"Not yet run: {missing}." if missing else "All cells have ended.",
        "scores": _score_table(scores, paired),
        "differences": _difference_table(scores, paired),
        "reached": _reached(scores, curves, paired["cues"]),
        "curve": _curve_table(curves),
        "chosen": _chosen_table(paired),
    }


def mean_scores(each: Sequence[Mapping[str, Draws]]) -> dict[str, Draws]:
    """Of seeds, metric by metric."""
    return {name: np.asarray(np.mean([s[name] for s in each], axis=0)) for name in each[0]}


def _way_scores(cell: Cell, way: str) -> dict[str, Draws]:
    """Scores of one way of writing, with dependence where another patient's scan was shown."""
    found = drawn_scores(cell["ways"][way]["test"])
    other = cell["ways"].get(f"{way}, other patient")
    if other is not None:
        wrong = drawn_scores(other["test"])["f1"]
        found["dependence"] = (found["f1"] - wrong) / (1 - wrong)
    return found


def curve_scores(curves: Sequence[Mapping[str, Any]], kind: str) -> dict[float, dict[str, Draws]]:
    """Threshold → scores of the told writer, or of stock sentences of the same findings.

    Args:
        curves: What `writers.threshold_curve` gave, one per seed.
        kind: told or template.
    """
    return {
        float(threshold): mean_scores([drawn_scores(each[threshold][kind]) for each in curves])
        for threshold in curves[0]
    }


def _score_table(scores: Scores, cells: Mapping[str, Sequence[Cell]]) -> str:
    rows = []
    for (arm, way), found in scores.items():
        cost = np.mean([cell["ways"][way]["seconds"] for cell in cells[arm]])
        dependence = shown(found["dependence"]) if "dependence" in found else "–"
        told = [shown(found[metric]) for metric in METRICS]
        rows.append((NAMES[arm, way], len(cells[arm]), *told, dependence, f"{cost:.2f}"))
    return table(("System", "seeds", *METRICS.values(), "Dependence", "CPU s a report"), rows)


def _difference_table(scores: Scores, cells: Mapping[str, Sequence[Cell]]) -> str:
    """Of every system from origin of the same seeds."""
    plain = {cell["seed"]: _way_scores(cell, BASE[1]) for cell in cells[BASE[0]]}
    rows = []
    for (arm, way), found in scores.items():
        if (arm, way) != BASE:
            base = mean_scores([plain[cell["seed"]] for cell in cells[arm]])
            told = (shown(found[metric] - base[metric], "+.3f") for metric in METRICS)
            rows.append((NAMES[arm, way], len(cells[arm]), *told))
    return table(("Against origin", "seeds", *METRICS.values()), rows)


def _curve_table(curves: Mapping[str, Mapping[float, Mapping[str, Draws]]]) -> str:
    rows = [
        (f"{threshold:g}", kind, *(shown(found[m]) for m in ("coverage", "precision", "f1")))
        for kind, points in curves.items()
        for threshold, found in points.items()
    ]
    return table(("told from", "written by", "Coverage", "Precision", "F1"), rows)


def _chosen_table(cells: Mapping[str, Sequence[Cell]]) -> str:
    rows = []
    for arm, runs in cells.items():
        for cell in runs if arm != "drawn" else ():
            knobs, told = cell["tuned"]["generate"], cell["tuned"]["cue_threshold"]
            held = "nothing" if knobs["contrast"] == "none" else f"{knobs['contrast']} volume"
            row = (arm, cell["seed"], held, knobs["contrast_weight"], knobs["plausibility"])
            rows.append((*row, "–" if told is None else f"{told:.2f}"))
    return table(("arm", "seed", "held against", "γ", "α", "told from"), rows)


def coverage_at(points: Mapping[float, Mapping[str, Draws]], precision: Draws) -> Draws:
    """Coverage of a curve at a precision, on the line between its points, draw by draw."""
    by_precision = [points[threshold] for threshold in sorted(points)]
    at, reached = (np.stack([p[name] for p in by_precision]) for name in ("precision", "coverage"))
    found = []
    for wanted, xs, ys in zip(precision, at.T, reached.T, strict=True):
        order = np.argsort(xs)
        found.append(np.interp(wanted, xs[order], ys[order]))
    return np.array(found)


def _reached(
    scores: Scores,
    curves: Mapping[str, Mapping[float, Mapping[str, Draws]]],
    told: Sequence[Cell],
) -> str:
    """Each aim beside what was measured."""
    ours, base = scores[OURS], scores[BASE]
    plain = scores["cues", "plain"]
    told_at = coverage_at(curves["told"], plain["precision"])
    stock_at = coverage_at(curves["template"], plain["precision"])
    at_base = coverage_at(curves["told"], base["precision"])
    moved = mean_scores([{"moved": _moved(cell)} for cell in told])["moved"]

    ratio = np.asarray(ours["coverage"] / base["coverage"])
    less = {metric: np.asarray(ours[metric] - base[metric]) for metric in ours}
    stock = np.asarray(told_at / stock_at)
    aims: list[tuple[str, str, Draws, float, int]] = [
        ("Coverage, times origin's", "at least 1.145", ratio, 1.145, 0),
        ("Coverage − origin's", "lower bound above 0", less["coverage"], 0, 1),
        ("Precision − origin's", "lower bound above −0.01", less["precision"], -0.01, 1),
        ("F1, macro − origin's", "at least 0.05", less["f1_macro"], 0.05, 0),
        ("BLEU-4 − origin's", "lower bound above −0.01", less["bleu_4"], -0.01, 1),
        ("Coverage at equal precision, times the template's", "at least 0.9", stock, 0.9, 0),
        ("Dependence − origin's", "lower bound above 0", less["dependence"], 0, 1),
        ("Reports that move towards another's cue", "at least 0.8", moved, 0.8, 0),
    ]
    lines = [
        (what, aim, shown(drawn), "reached" if bounds(drawn)[which] >= least else "**missed**")
        for what, aim, drawn, least, which in aims
    ]
    lines.append(("Coverage of told writing at origin's precision", "–", shown(at_base), ""))
    return table(("cues + mean volume, unless said", "aim", "measured", ""), lines)


def _moved(cell: Cell) -> Draws:
    """Share of scans, of those with another cue, whose report comes nearer to that cue."""
    own, swapped = cell["ways"]["plain"]["test"], cell["ways"]["plain, other's cue"]["test"]
    cue, before, after = (
        np.array(text.split(), np.int64)
        for text in (swapped["cue"], own["stated"], swapped["stated"])
    )
    differs = cue != np.array(own["cue"].split(), np.int64)
    nearer = np.bitwise_count(after ^ cue) < np.bitwise_count(before ^ cue)
    drawn = weights(np.array(own["patient"].split(), np.int64))
    return np.asarray((drawn @ (nearer & differs)) / (drawn @ differs))


def _figure(scores: Scores, curves: Mapping[str, Mapping[float, Mapping[str, Draws]]]) -> Figure:
    """Coverage against precision: the two curves, and every arm written in every way."""
    figure, (axes,) = new_figure(6, 4.6)
    names = {"told": "told, by threshold", "template": "stock sentences, by threshold"}
    with style():
        for (kind, points), (colour, marker) in zip(curves.items(), MARKERS, strict=False):
            at = np.array([[p["coverage"][0], p["precision"][0]] for p in points.values()])
            axes.plot(*at.T, color=colour, marker=marker, linewidth=1.2, label=names[kind])
        for (arm, way), found in scores.items():
            place = float(found["coverage"][0]), float(found["precision"][0])
            axes.plot(*place, marker=".", color="black", linestyle="none")
            axes.annotate(NAMES[arm, way], place, (4, 3), textcoords="offset points", fontsize=7)
        axes.set(xlabel="Coverage", ylabel="Precision", title="Test scans")
        axes.legend(frameon=False)
    return figure
