"""The paper, item by item, on phantoms: its two tables, and what it says of lesions and patients.

``make study NAME=paper``: about half an hour a seed on one core.
"""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import SEEDS, Cell, Study, run_study
from benchmarks.page_paper import BETAS, PASSES, page
from benchmarks.writers import (
    as_text,
    draw_scans,
    gap_columns,
    scan_columns,
    train_writer,
    training_summary,
)
from ctscribe.base.rows import Lesion, PredictionRow, StudyRow, TruthRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.measure.scans import one_row_per_scan
from ctscribe.write.writer import ReportWriter

STUDY = Study(
    "paper",
    [
        (f"{strategy}-{beta:g}-{passes}", seed)
        for seed in SEEDS
        for passes in PASSES
        for strategy, betas in BETAS.items()
        for beta in betas
    ],
    (
        "phantom.seed=10",  # drawn for this study alone
        "phantom.num_train_patients=750",
        "phantom.num_valid_patients=400",
        "phantom.nodule_mm=3.5",
        "splits.validation_fraction=0.2",
    ),
)
JUDGED = 8
"""Validation scans looked at after each pass, for the log; no weights are chosen by them."""
CURVE_POINTS = 100
"""Of the training loss, each the mean of as many updates."""
_OPERATED = re.compile(r"sternotomy|surgical clips", re.IGNORECASE)
_METAL = re.compile(r"pacemaker|sternotomy|clips", re.IGNORECASE)


def run_cell(out: Path, name: str, seed: int) -> Cell:
    strategy, beta, passes = name.split("-")
    knobs = (f"pairs.strategy={strategy}", f"objective.beta={beta}", f"train.epochs={passes}")
    recipe = STUDY.recipe(*knobs, f"pairs.seed={seed}", f"train.seed={seed}")
    prepared, run = Prepared(out / "prepared"), out / "cells" / f"{name}-seed{seed}"
    shutil.rmtree(run, ignore_errors=True)  # begun anew, so that its seconds are those of all of it
    judged = prepared.split("validation")[:JUDGED]
    writer, seconds = train_writer(run, prepared, recipe, prepared.split("train"), judged)
    columns = scan_columns(writer, prepared, "test") | gap_columns(writer, prepared)
    scans = sorted(one_row_per_scan(prepared.split("test")), key=lambda scan: scan.scan_id)
    written = read_rows(run / "test.jsonl", PredictionRow)
    columns["written_ce"] = 1e4 * _written_ce(writer, prepared, scans, written)
    columns |= _groups(out / "data" / "truth.jsonl", scans, recipe.phantom.lesion_scale)
    found: Cell = {
        "knobs": knobs,
        "seconds": round(seconds, 1),
        "training": training_summary(run, ("positive_ce", "negative_ce")),
        "loss": _loss_curve(read_rows(run / "metrics.jsonl", MetricsRow)),
        "test": as_text(columns),
    }
    shutil.rmtree(run)
    return found


def _written_ce(
    writer: ReportWriter,
    prepared: Prepared,
    scans: Sequence[StudyRow],
    written: Sequence[PredictionRow],
) -> np.ndarray:
    """How unsure the model is of what it wrote itself: its cross entropy on the own scan."""
    texts = {row.scan_id: row for row in written}
    told = [
        scan.model_copy(
            update={
                "findings": texts[scan.scan_id].findings,
                "impression": texts[scan.scan_id].impression,
            }
        )
        for scan in scans
    ]
    return np.asarray(writer.losses(told, writer.features(prepared, scans).visual))


def _groups(truth: Path, scans: Sequence[StudyRow], lesion_scale: float) -> dict[str, np.ndarray]:
    """The largest nodule's diameter in 0.1 mm before it was enlarged, and what was implanted."""
    lesions = {row.volume_name: row.lesions for row in read_rows(truth, TruthRow)}
    each = [lesions[scan.volume_name] for scan in scans]
    return {
        "nodule": np.array([10 * _largest_nodule_mm(found) / lesion_scale for found in each]),
        "operated": np.array([any(_OPERATED.search(one.sentence) for one in f) for f in each]),
        "metal": np.array([any(_METAL.search(one.sentence) for one in f) for f in each]),
    }


def _largest_nodule_mm(lesions: Sequence[Lesion]) -> float:
    return max((one.size_mm for one in lesions if one.finding == "Lung nodule"), default=0.0)


def _loss_curve(rows: Sequence[MetricsRow]) -> dict[str, list[float]]:
    """Cross entropy of positives and negatives over the updates, in few points."""
    parts = np.array_split(np.arange(len(rows)), min(CURVE_POINTS, len(rows)))

    def mean(name: str, part: np.ndarray) -> float:
        values = [value for i in part if (value := getattr(rows[i], name)) is not None]
        return round(float(np.mean(values)), 4) if values else float("nan")

    kept = {"step": [rows[part[-1]].step for part in parts]}
    curves = {n: [mean(n, part) for part in parts] for n in ("positive_ce", "negative_ce")}
    return kept | {name: values for name, values in curves.items() if not np.isnan(values).any()}


if __name__ == "__main__":
    run_study(STUDY, partial(draw_scans, STUDY), run_cell, page)
