"""The page of what learning from reward adds, from the raw files of its cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Cell, Cells, Draws, Study, shown, table, weights
from benchmarks.page_say import METRICS, coverage_at, curve_scores, mean_scores
from benchmarks.writers import drawn_scores, stated_scores

ARMS: dict[str, tuple[str, ...]] = {
    "origin": ("pairs.strategy=origin", "objective.beta=0"),
    "cues": ("pairs.strategy=origin", "objective.beta=0", "model.cues=true"),
}
"""What each arm changes; both then go on as `reinforce` has it in the tiny recipe."""
TIMES = ("before", "after")
WAYS = {"plain": "plain", "tuned": "as tuned"}
SHOWN = {**METRICS, "read_f1": "F1 by the other reader"}
Scores = Mapping[tuple[str, str], Mapping[str, Draws]]
"""(way, before or after) → metric → draws, the mean of the seeds."""


def page(study: Study) -> dict[str, Any]:
    cells = study.ended()
    if not cells:
        raise SystemExit("One run at least must have ended.")
    scores = {arm: _arm_scores(runs) for arm, runs in cells.items()}
    one = next(iter(cells.values()))[0]
    patients = one["before"]["ways"]["plain"]["patient"].split()
    missing = ", ".join(f"{arm} of seed {seed}" for arm, seed in study.missing())
    return {
        "num_scans": len(patients),
        "num_patients": len(set(patients)),
        "missing": f"Not yet run: {missing}." if missing else "All runs have ended.",
        "reader_f1": shown(_f1(one["references"], one, "read")),
        "scores": _score_table(scores, cells),
        "differences": _difference_table(scores, cells),
        "curve": _curve_table(cells.get("cues", [])),
        "runs": _run_table(cells),
    }


def _arm_scores(runs: Sequence[Cell]) -> Scores:
    return {
        (way, time): mean_scores([_way_scores(cell, time, way) for cell in runs])
        for way in WAYS
        for time in TIMES
    }


def _way_scores(cell: Cell, time: str, way: str) -> dict[str, Draws]:
    kept = cell[time]["ways"][way]
    return drawn_scores(kept) | {"read_f1": _f1(kept, cell, "read")}


def _f1(kept: Mapping[str, str], cell: Cell, stated: str) -> Draws:
    """Of the findings of a column against the true ones, by patients left out."""
    patients = cell["before"]["ways"]["plain"]["patient"]
    said, true = (np.array(kept[name].split(), np.int64) for name in (stated, "true"))
    counted = {"hits": said & true, "false_alarms": said & ~true, "misses": ~said & true}
    drawn = weights(np.array(patients.split(), np.int64))
    found = stated_scores({name: drawn @ np.bitwise_count(c) for name, c in counted.items()})
    return np.asarray(found["f1"])


def _score_table(scores: Mapping[str, Scores], cells: Cells) -> str:
    rows = [
        (arm, WAYS[way], time, len(cells[arm]), *(shown(found[metric]) for metric in SHOWN))
        for arm, each in scores.items()
        for (way, time), found in each.items()
    ]
    return table(("arm", "written", "reward", "seeds", *SHOWN.values()), rows)


def _difference_table(scores: Mapping[str, Scores], cells: Cells) -> str:
    rows = []
    for arm, each in scores.items():
        for way, told in WAYS.items():
            before, after = (each[way, time] for time in TIMES)
            less = (shown(np.asarray(after[m] - before[m]), "+.3f") for m in SHOWN)
            rows.append((arm, told, len(cells[arm]), *less))
    return table(("after − before", "written", "seeds", *SHOWN.values()), rows)


def _curve_table(runs: Sequence[Cell]) -> str:
    """Coverage of told writing where its precision is that of its own threshold, by template's."""
    if not runs:
        return "No run of cues has ended."
    curves = {
        (time, kind): curve_scores([cell[time]["curve"] for cell in runs], kind)
        for time in TIMES
        for kind in ("told", "template")
    }
    rows, shares = [], {}
    for time in TIMES:
        precision = _arm_scores(runs)["plain", time]["precision"]
        told, stock = (coverage_at(curves[time, kind], precision) for kind in ("told", "template"))
        shares[time] = np.asarray(told / stock)
        rows.append((time, *map(shown, (precision, told, stock, shares[time]))))
    gain = shown(np.asarray(shares["after"] - shares["before"]), "+.3f")
    rows.append(("after − before", "", "", "", gain))
    return table(("reward", "at precision", "Coverage, told", "template", "share"), rows)


def _run_table(cells: Cells) -> str:
    rows = []
    for arm, runs in cells.items():
        for cell in runs:
            seconds = (f"{cell[name]:.0f}" for name in ("seconds", "reward_seconds"))
            rows.append((arm, cell["seed"], cell["updates"], *seconds))
    return table(("arm", "seed", "updates kept", "CPU s of training", "of the reward"), rows)
