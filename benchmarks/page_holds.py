"""The study of where the paper's negatives help: its grid, and what its page tells of the cells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from benchmarks.curves import Curves, Point, mean, seconds
from benchmarks.harness import PAGES, SEEDS, Cell, Study, bounds, direction, shown, table
from benchmarks.writers import drawn_scores
from ctscribe.base.figures import MARKERS, MEANINGS, line, new_figure, style, write_figure

ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "heter": ("pairs.strategy=heter",),
    "gauss": ("pairs.strategy=gauss",),
    "decay": ("pairs.strategy=heter", "objective.beta=0.3", "objective.beta_schedule=decay"),
    "mutual": ("pairs.strategy=heter", "pairs.mutual=true"),
}
"""What each arm changes; all but decay keep the tiny recipe's β = 0.1, all its cap of 3 nats."""
MARKED = {arm: MEANINGS[arm.title()] for arm in ("origin", "heter", "gauss")} | dict(
    zip(("decay", "mutual"), MARKERS, strict=False)
)
"""Colour and shape of each arm's points."""
PANELS: dict[int, tuple[Point, ...]] = {
    100: ((20, 1), (50, 1), (100, 1), (100, 2), (100, 4), (100, 8)),
    20: ((20, 1), (20, 2), (20, 5), (20, 10), (20, 20)),
    5: ((5, 10), (5, 20), (5, 40)),
}
"""Percent of the patients that there are → points in the order of reports seen.

A part of the first pass over all patients is one pass over a part of them.
"""
ORDER: tuple[Point, ...] = (
    *((20, 1), (50, 1), (100, 1), (20, 5), (100, 2), (20, 2), (20, 10), (100, 4), (20, 20)),
    *((100, 8), (5, 20), (5, 40), (5, 10)),
)
"""Short runs with many patients first."""
LEFT_OUT: dict[str, set[Point]] = {
    "origin": set(),
    "heter": {(20, 2), (5, 10)},
    "gauss": set(ORDER) - {(20, 1), (100, 1), (20, 5), (100, 8), (5, 20)},
    "decay": {(50, 1), (20, 2), (5, 10)},
    "mutual": set(ORDER) - {(20, 1), (100, 1), (20, 5), (100, 2), (100, 4)},
}
"""For want of time; Origin's points alone are needed to compare equal CPU time."""
METRICS = {
    "coverage": "Coverage",
    "precision": "Precision",
    "f1": "F1",
    "f1_macro": "Macro-F1",
    "label_accuracy": "Accuracy",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "gap": "Mismatch gap",
    "own_perplexity": "Perplexity, own scan",
    "other_perplexity": "Perplexity, another's scan",
}
COMPARED = ("f1", "coverage", "bleu_4")
KINDS = {"positives": "reports seen", "seconds": "CPU seconds"}
"""Of cost, by the column of a cell."""


def page(study: Study) -> dict[str, Any]:
    ended: dict[tuple[str, Point], dict[int, Cell]] = {}
    for name, runs in study.ended().items():
        arm, percent, passes = name.split("-")
        ended[arm, (int(percent), int(passes))] = {
            run["seed"]: run | {"drawn": drawn_scores(run["test"])} for run in runs
        }
    curves = Curves(ended, "origin")
    write_figure(PAGES / "holds.png", _figure(curves))
    cells = [cell for runs in ended.values() for cell in runs.values()]
    patients = cells[0]["test"]["patient"].split()
    taught = {(cell["patients"], cell["scans"]) for cell in cells if cell["seed"] == SEEDS[0]}
    return {
        "num_scans": len(patients),
        "num_patients": len(set(patients)),
        "taught": ", ".join(f"{count} with {scans}" for count, scans in sorted(taught)),
        "missing": _missing(study),
        "verdict": _verdict(curves),
        "differences": _difference_table(curves),
        "mutual": _mutual_table(Curves(ended, "heter")),
        "scores": _score_table(curves),
    }


def _missing(study: Study) -> str:
    missing = study.missing()
    if not missing:
        return f"All {len(study.cells)} runs have ended."
    names: dict[int, list[str]] = {}
    for name, seed in missing:
        names.setdefault(seed, []).append(name)
    told = "; ".join(f"seed {seed}: {', '.join(each)}" for seed, each in names.items())
    return (
        f"**{len(missing)} of {len(study.cells)} runs are missing**, so all that follows is of "
        f"those that have ended. Missing, as arm-percent-passes: {told}."
    )


def _points(arm: str, percent: int) -> list[Point]:
    """An arm's points with that share of the patients or a part of it."""
    return [point for point in PANELS[percent] if point not in LEFT_OUT[arm]]


def _verdict(curves: Curves) -> str:
    """What the intervals of F1 say on the claim, arm by arm and share by share."""
    lines = (_judge(curves, arm, percent) for arm in list(ARMS)[1:] for percent in PANELS)
    return "\n".join(line for line in lines if line) or "No run has ended beside Origin's."


def _judge(curves: Curves, arm: str, percent: int) -> str | None:
    points = _points(arm, percent)
    reports = [curves.per_report(arm, point, "f1") for point in points]
    times = [curves.per_second(arm, point, "f1", PANELS[percent]) for point in points]
    ways, timed = (
        [direction(each) for each in found if each is not None] for found in (reports, times)
    )
    told = (
        f"- **{arm}, {percent} % of the patients**: with equal reports F1 is {_count(ways)}, with "
        f"equal CPU time {_count(timed)}"
    )
    if not ways:
        return None
    end = reports[-1]
    if end is None:
        return f"{told}. Its longest run has not ended, so the claim is open."
    parts = {
        "learns more per report": "higher" in ways,
        "learns no more per CPU second": "higher" not in timed,
        "ends no higher": direction(end) != "higher",
    }
    failing = [part for part, is_so in parts.items() if not is_so]
    return (
        f"{told}; after {_passes(points[-1], percent)} passes, its longest run, it is "
        f"{direction(end)} ({shown(end, '+.3f')}). The claim "
        + (f"**fails**: it is not so that it {' or '.join(failing)}." if failing else "**holds**.")
    )


def _count(ways: Sequence[str]) -> str:
    higher, lower = ways.count("higher"), ways.count("lower")
    return f"higher at {higher} and lower at {lower} of {len(ways)} points"


def _passes(point: Point, percent: int) -> str:
    """Passes over a share of the patients; part of one, where a part of them was shown."""
    return f"{point[0] * point[1] / percent:g}"


def _difference_table(curves: Curves) -> str:
    rows = []
    for arm in list(ARMS)[1:]:
        for percent in PANELS:
            for point in _points(arm, percent):
                if seeds := curves.seeds(arm, point):
                    which = (arm, percent, _passes(point, percent), len(seeds))
                    rows.append((*which, *_differences(curves, arm, point, percent)))
    names = [
        f"{METRICS[metric]}, equal {what}"
        for what in ("reports", "CPU time")
        for metric in COMPARED
    ]
    start = ("Arm − Origin", "% of patients", "passes", "seeds", "CPU time, times Origin's")
    return table((*start, *names), rows)


def _differences(curves: Curves, arm: str, point: Point, percent: int) -> list[str]:
    reports = [curves.per_report(arm, point, metric) for metric in COMPARED]
    times = [curves.per_second(arm, point, metric, PANELS[percent]) for metric in COMPARED]
    told = ["–" if each is None else shown(each, "+.3f") for each in (*reports, *times)]
    return [f"{curves.cost(arm, point):.2f}", *told]


def _mutual_table(beside_heter: Curves) -> str:
    """What is lost where partners must be each other's negative."""
    rows = []
    for point in ORDER:
        if seeds := beside_heter.seeds("mutual", point):
            found = (beside_heter.per_report("mutual", point, metric) for metric in METRICS)
            told = (shown(each, "+.3f") for each in found if each is not None)
            rows.append((*point, len(seeds), f"{beside_heter.cost('mutual', point):.2f}", *told))
    start = ("% of patients", "passes", "seeds", "CPU time, times Heter's")
    return table((*start, *METRICS.values()), rows)


def _score_table(curves: Curves) -> str:
    rows = []
    for point in sorted(ORDER, reverse=True):
        for arm in ARMS:
            if runs := curves.ended.get((arm, point)):
                reports = next(iter(runs.values()))["positives"]
                scores = (shown(mean(runs, [*runs], metric)) for metric in METRICS)
                cost = f"{seconds(runs, [*runs]):.0f}"
                rows.append((*point, arm, len(runs), reports, cost, *scores))
    names = ("% of patients", "passes", "arm", "seeds", "reports seen", "CPU s", *METRICS.values())
    return table(names, rows)


def _figure(curves: Curves) -> Figure:
    figure, axes = new_figure(10, 15, len(PANELS), 2 * len(COMPARED))
    rows = [(metric, kind) for metric in COMPARED for kind in KINDS]
    places = [(*row, percent) for row in rows for percent in PANELS]
    with style():
        for each, place in zip(axes, places, strict=True):
            _draw(each, curves, *place)
        axes[0].legend(frameon=False)
    return figure


def _draw(axes: Axes, curves: Curves, metric: str, kind: str, percent: int) -> None:
    """A metric against one kind of cost, a line per arm."""
    axes.set_title(f"{percent} % of the patients")
    found = {arm: [curves.ended.get((arm, at), {}) for at in PANELS[percent]] for arm in MARKED}
    if not any(run for runs in found.values() for run in runs):
        axes.text(0.5, 0.5, "no run has ended", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    for arm, marker in MARKED.items():
        ended = [runs for runs in found[arm] if runs]
        at = [float(np.mean([cell[kind] for cell in runs.values()])) for runs in ended]
        line(axes, at, [bounds(mean(r, [*r], metric)) for r in ended], marker, arm)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel(KINDS[kind])
    axes.set_ylabel(METRICS[metric])
