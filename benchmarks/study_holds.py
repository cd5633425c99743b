"""Where do the paper's negatives help: with how many patients, after how many passes?

``make study NAME=holds``: about three hours on one core. Cells come in the order of their worth,
all of a seed before the next seed's, few patients last; the page tells what has ended.
"""

import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import (
    PAGES,
    SEEDS,
    Cell,
    Draws,
    Study,
    bounds,
    direction,
    run_study,
    shown,
    table,
)
from benchmarks.writers import (
    as_text,
    draw_scans,
    drawn_scores,
    gap_columns,
    scan_columns,
    train_writer,
    training_summary,
)
from ctscribe.base.figures import MARKERS, line, new_figure, write_figure
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared

ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "heter": ("pairs.strategy=heter",),
    "gauss": ("pairs.strategy=gauss",),
    "decay": ("pairs.strategy=heter", "objective.beta=0.3", "objective.beta_schedule=decay"),
}
"""What each arm changes; Gauss and Heter keep the tiny recipe's β = 0.1, all its cap of 3 nats."""
Point = tuple[int, int]
"""Percent of the training patients, and passes over their scans; a run of its own each."""
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
Ended = dict[tuple[str, Point], dict[int, Cell]]
"""Arm and point → seed → its cell, with the scores of all draws as ``drawn``."""
JUDGED = 8
"""Validation scans looked at after each pass, for the log; no weights are chosen by them."""
STUDY = Study(
    "holds",
    [
        (f"{arm}-{percent}-{passes}", seed)
        for seed in SEEDS
        for percent, passes in ORDER
        for arm in ARMS
        if (percent, passes) not in LEFT_OUT[arm]
    ],
    (
        "phantom.seed=9",  # drawn for this study alone
        "phantom.num_train_patients=750",
        "phantom.num_valid_patients=400",
        "splits.validation_fraction=0.2",
    ),
)


def run_cell(out: Path, name: str, seed: int) -> Cell:
    arm, percent, passes = name.split("-")
    recipe = STUDY.recipe(
        *(*ARMS[arm], f"train.epochs={passes}", f"pairs.seed={seed}", f"train.seed={seed}")
    )
    prepared, run = Prepared(out / "prepared"), out / "cells" / f"{name}-seed{seed}"
    shutil.rmtree(run, ignore_errors=True)  # begun anew, so that its seconds are those of all of it
    taught = share_of_patients(prepared.split("train"), int(percent), seed)
    judged = prepared.split("validation")[:JUDGED]
    writer, seconds = train_writer(run, prepared, recipe, taught, judged)
    kept = as_text(scan_columns(writer, prepared, "test") | gap_columns(writer, prepared))
    training = training_summary(run, ("positive_ce", "negative_ce"))
    shutil.rmtree(run)
    return {
        "knobs": ARMS[arm],
        "patients": len({study.patient_id for study in taught}),
        "scans": len(taught),
        "seconds": round(seconds, 1),
        "positives": int(training["updates"] or 0) * recipe.train.pairs_per_device,
        "training": training,
        "test": kept,
    }


def share_of_patients(studies: Sequence[StudyRow], percent: int, seed: int) -> list[StudyRow]:
    """Studies of some patients, the first by a hash of seed and patient.

    So a smaller share is part of every larger one, and each seed has its own.
    """
    patients = sorted(
        {study.patient_id for study in studies},
        key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest(),
    )
    chosen = set(patients[: round(len(patients) * percent / 100)])
    return [study for study in studies if study.patient_id in chosen]


def page(study: Study) -> dict[str, Any]:
    ended: Ended = {}
    for name, runs in study.ended().items():
        arm, percent, passes = name.split("-")
        ended[arm, (int(percent), int(passes))] = {
            run["seed"]: run | {"drawn": drawn_scores(run["test"])} for run in runs
        }
    write_figure(PAGES / "holds.png", _figure(ended))
    first = next(iter(next(iter(ended.values())).values()))
    patients = first["test"]["patient"].split()
    shares = {percent: _largest(ended, percent) for percent in PANELS}
    return {
        "num_scans": len(patients),
        "num_patients": len(set(patients)),
        "shares": ", ".join(
            f"{percent} % are {cell['patients']} patients with {cell['scans']} scans"
            for percent, cell in shares.items()
            if cell
        ),
        "missing": _missing(study),
        "verdict": _verdict(ended),
        "differences": _difference_table(ended),
        "scores": _score_table(ended),
    }


def _largest(ended: Ended, percent: int) -> Cell | None:
    """A cell with that share of the patients."""
    runs = (run for (_, point), run in ended.items() if point[0] == percent)
    return next((cell for by_seed in runs for cell in by_seed.values()), None)


def _missing(study: Study) -> str:
    missing = study.missing()
    if not missing:
        return f"All {len(study.cells)} runs have ended."
    names = ", ".join(f"`{name}` seed {seed}" for name, seed in missing)
    return (
        f"**{len(missing)} of {len(study.cells)} runs are missing**; what follows is of those that "
        f"have ended. Missing, as arm, percent of the patients, passes: {names}."
    )


def _mean(runs: dict[int, Cell], seeds: Sequence[int], metric: str) -> Draws:
    return np.mean([runs[seed]["drawn"][metric] for seed in seeds], axis=0)


def _log_seconds(runs: dict[int, Cell], seeds: Sequence[int]) -> float:
    return float(np.log(np.mean([runs[seed]["seconds"] for seed in seeds])))


def _seeds(ended: Ended, arm: str, point: Point) -> list[int]:
    """Those with which both the arm and Origin have ended at a point."""
    runs = ended.get((arm, point), {})
    return [seed for seed in runs if seed in ended.get(("origin", point), {})]


def per_report(ended: Ended, arm: str, point: Point, metric: str) -> Draws | None:
    """Arm − Origin after the same reports."""
    seeds = _seeds(ended, arm, point)
    if not seeds:
        return None
    ours, origins = (_mean(ended[each, point], seeds, metric) for each in (arm, "origin"))
    return ours - origins


def per_second(ended: Ended, arm: str, point: Point, metric: str, percent: int) -> Draws | None:
    """Arm − Origin after the same CPU time, with that share of the patients or a part of it.

    Origin's score lies on the straight line between its neighbouring points over the logarithm of
    CPU time; None beyond its last point.
    """
    seeds = _seeds(ended, arm, point)
    known = [
        ended["origin", each]
        for each in PANELS[percent]
        if set(seeds) <= set(ended.get(("origin", each), {}))
    ]
    if not seeds or not known:
        return None
    at, times = _log_seconds(ended[arm, point], seeds), [_log_seconds(r, seeds) for r in known]
    order = np.argsort(times)
    after = int(np.searchsorted(np.array(times)[order], at))
    if after in (0, len(times)):
        return None
    low, high = (int(order[n]) for n in (after - 1, after))
    share = (at - times[low]) / (times[high] - times[low])
    before, behind = (_mean(known[n], seeds, metric) for n in (low, high))
    ours = _mean(ended[arm, point], seeds, metric)
    return ours - (1 - share) * before - share * behind


def _verdict(ended: Ended) -> str:
    """What the intervals of F1 say on the claim, arm by arm and share by share."""
    lines = []
    for arm in list(ARMS)[1:]:
        for percent, points in PANELS.items():
            reports = [per_report(ended, arm, point, "f1") for point in points]
            seconds = [per_second(ended, arm, point, "f1", percent) for point in points]
            if reports[-1] is None:
                continue  # its end is not known yet
            ways = [_ways(found) for found in (reports, seconds)]
            parts = {
                f"per report seen higher at {ways[0]}": "higher" in map(_way, reports),
                f"per CPU second higher at {ways[1]}": "higher" not in map(_way, seconds),
                f"after the last pass {_way(reports[-1])} ({shown(reports[-1], '+.3f')})": (
                    _way(reports[-1]) != "higher"
                ),
            }
            holds = "holds" if all(parts.values()) else "does not hold"
            lines.append(
                f"- **{arm}, {percent} % of the patients**: F1 is {', '.join(parts)}. "
                f"The claim {holds}."
            )
    return "\n".join(lines) or "Not known before the longest runs have ended."


def _way(found: Draws | None) -> str:
    return "unknown" if found is None else direction(found)


def _ways(found: Sequence[Draws | None]) -> str:
    ways = [way for way in map(_way, found) if way != "unknown"]
    return f"{ways.count('higher')} and lower at {ways.count('lower')} of {len(ways)} points"


def _difference_table(ended: Ended) -> str:
    rows = []
    for arm in list(ARMS)[1:]:
        for percent, points in PANELS.items():
            for point in points:
                seeds = _seeds(ended, arm, point)
                if not seeds:
                    continue
                times = (_log_seconds(ended[each, point], seeds) for each in (arm, "origin"))
                reports = [per_report(ended, arm, point, metric) for metric in COMPARED]
                seconds = [per_second(ended, arm, point, metric, percent) for metric in COMPARED]
                cost = f"{np.exp(next(times) - next(times)):.2f}"
                told = ("–" if each is None else shown(each, "+.3f") for each in reports + seconds)
                rows.append((arm, percent, _passes(point, percent), len(seeds), cost, *told))
    names = [
        f"Δ {METRICS[metric]}, equal {what}"
        for what in ("reports", "CPU time")
        for metric in COMPARED
    ]
    return table(
        ("Arm − Origin", "% of patients", "passes", "seeds", "CPU time, times", *names), rows
    )


def _passes(point: Point, percent: int) -> str:
    """Passes over a share of the patients; part of one, where fewer were shown."""
    return f"{point[0] * point[1] / percent:g}"


def _score_table(ended: Ended) -> str:
    rows = []
    for (arm, point), runs in sorted(
        ended.items(), key=lambda each: (each[0][1], [*ARMS].index(each[0][0]))
    ):
        seconds = np.exp(_log_seconds(runs, [*runs]))
        reports = next(iter(runs.values()))["positives"]
        scores = (shown(_mean(runs, [*runs], metric)) for metric in METRICS)
        rows.append((*point, arm, len(runs), reports, f"{seconds:.0f}", *scores))
    names = ("% of patients", "passes", "arm", "seeds", "reports seen", "CPU s", *METRICS.values())
    return table(names, rows)


def _figure(ended: Ended) -> Figure:
    figure, axes = new_figure(10, 15, len(PANELS), 2 * len(COMPARED))
    rows = [(metric, kind) for metric in COMPARED for kind in ("reports seen", "CPU seconds")]
    places = [(row, percent) for row in rows for percent in PANELS]
    for each, ((metric, kind), percent) in zip(axes, places, strict=True):
        for arm, marker in zip(ARMS, MARKERS, strict=True):
            runs = [ended[arm, point] for point in PANELS[percent] if (arm, point) in ended]
            at = [
                float(np.mean([_cost(cell, kind) for cell in by_seed.values()])) for by_seed in runs
            ]
            line(each, at, [bounds(_mean(r, [*r], metric)) for r in runs], marker, arm)
        each.set_xscale("log")
        each.set_xlabel(kind)
        each.set_ylabel(METRICS[metric])
        each.set_title(f"{percent} % of the patients")
    axes[0].legend(frameon=False)
    return figure


def _cost(cell: Cell, kind: str) -> float:
    return float(cell["positives" if kind == "reports seen" else "seconds"])


if __name__ == "__main__":
    run_study(STUDY, partial(draw_scans, STUDY), run_cell, page)
