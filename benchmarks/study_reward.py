"""Does learning from reward add to a writer, to one that is told findings, and by another reader?

``make study NAME=reward``: about forty minutes a seed on one core. A cell trains a writer, goes on
from it by `reinforce`, and writes the test scans before and after; all choices, the updates that
are kept among them, are made on validation.
"""

import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness import SEEDS, Cell, Study, run_study
from benchmarks.page_reward import ARMS, page
from benchmarks.reader import Reader
from benchmarks.writers import (
    as_text,
    bits,
    draw_scans,
    threshold_curve,
    train_writer,
    written_columns,
)
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.learn.train.reinforce import reinforce
from ctscribe.measure.scans import labelled_text
from ctscribe.measure.tune import tune
from ctscribe.text.labeler import known_labels
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter

STUDY = Study(
    "reward",
    [(arm, seed) for seed in SEEDS for arm in ARMS],
    (
        "phantom.seed=34",  # drawn for this study alone
        "phantom.num_valid_patients=400",
        "splits.validation_fraction=0.2",
        "generate.contrast=mean",
    ),
)


def run_cell(out: Path, arm: str, seed: int) -> Cell:
    seeds = (f"{section}.seed={seed}" for section in ("pairs", "train", "reinforce"))
    recipe = STUDY.recipe(*ARMS[arm], *seeds)
    prepared, run = Prepared(out / "prepared"), out / "cells" / f"{arm}-seed{seed}"
    rewarded = run.with_name(f"{run.name}-rewarded")
    for folder in (run, rewarded):  # begun anew, so that seconds are those of all of it
        shutil.rmtree(folder, ignore_errors=True)
    taught, judged = prepared.scans("train"), prepared.scans("validation")
    reader = Reader([_text(study) for study in taught], [known_labels(study) for study in taught])
    writer, seconds = train_writer(run, prepared, recipe, prepared.split("train"), judged[:8])
    before = _written(writer, prepared, reader)
    cues = None
    if recipe.model.cues:
        cues = ReportWriter(run).cues(prepared, [*taught, *judged])
    began = time.process_time()
    ended = reinforce(rewarded, run, prepared, recipe, cues=cues)
    reward_seconds = time.process_time() - began
    found: Cell = {
        "knobs": ARMS[arm],
        "seconds": round(seconds, 1),
        "reward_seconds": round(reward_seconds, 1),
        "updates": ended.best_step,
        "before": before,
        "after": _written(ReportWriter(rewarded), prepared, reader),
        "references": _references(prepared, reader),
    }
    for folder in (run, rewarded):
        shutil.rmtree(folder)
    return found


def _written(writer: ReportWriter, prepared: Prepared, reader: Reader) -> Cell:
    """What a run writes once it is tuned: plain, as tuned, and told from every threshold."""
    tune(writer, prepared)
    chosen = ReportWriter(writer.run_dir)
    plain = chosen.with_overrides(("generate.contrast=none",))
    found: Cell = {"tuned": chosen.generate.model_dump(mode="json"), "ways": {}}
    for way, using in (("plain", plain), ("tuned", chosen)):
        rows = generate(using, prepared, "test", writer.run_dir / f"{way}.jsonl")
        texts = {row.scan_id: labelled_text(row.findings, row.impression) for row in rows}
        read = bits(reader.read([texts[name] for name in sorted(texts)]))
        found["ways"][way] = as_text(written_columns(rows, prepared, "test") | {"read": read})
    if writer.recipe.model.cues:
        found["curve"] = threshold_curve(plain, prepared, writer.run_dir)
    return found


def _references(prepared: Prepared, reader: Reader) -> dict[str, str]:
    """The test scans' findings, and those that the reader takes from their true reports."""
    scans = sorted(prepared.scans("test"), key=lambda study: study.scan_id)
    read = reader.read([_text(study) for study in scans])
    return as_text({"true": bits([known_labels(each) for each in scans]), "read": bits(read)})


def _text(study: StudyRow) -> str:
    return labelled_text(study.findings, study.impression)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    run_study(STUDY, partial(draw_scans, STUDY), run_cell, page)
