"""Where do the paper's negatives help: with how many patients, after how many passes?

``make study NAME=holds``: about three hours on one core. Cells come in the order of their worth,
all seeds of a point before the next point's, few patients last; the page tells what has ended.
"""

import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import SEEDS, Cell, Study, run_study
from benchmarks.page_holds import ARMS, LEFT_OUT, ORDER, page
from benchmarks.writers import (
    as_text,
    draw_scans,
    gap_columns,
    scan_columns,
    train_writer,
    training_summary,
)
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared

JUDGED = 8
"""Validation scans looked at after each pass, for the log; no weights are chosen by them."""
STUDY = Study(
    "holds",
    [
        (f"{arm}-{percent}-{passes}", seed)
        for percent, passes in ORDER
        for seed in SEEDS
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


if __name__ == "__main__":
    run_study(STUDY, partial(draw_scans, STUDY), run_cell, page)
