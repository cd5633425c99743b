"""Small nodules against the number of slices, with and without a second look, on phantoms.

Usage: python benchmarks/study_nodules.py [--out FOLDER] [--cells A,B]

Every cell (an arm and a seed) ends as one JSON file in docs/results/slice_aware/nodules/, so an
interrupted study goes on where it stopped. It keeps, of every scan asked about, the log-odds that
there is a nodule, its nodules' sizes, and where the queries raise alarms; study_slices.py makes a
section of docs/results/slice_aware.md from those.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.base.files import write_json, write_text
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import StudyRow, TruthRow, read_rows
from ctscribe.base.runs import provenance

RAW = Path(__file__).parents[1] / "docs" / "results" / "slice_aware" / "nodules"
SEEDS = (0, 1, 2)
ARMS: dict[str, tuple[int, int]] = {
    "10": (10, 0),
    "20": (20, 0),
    "40": (40, 0),
    "80": (80, 0),
    "40+40": (40, 20),
}
"""Slices, and pairs of them read again as crops; n+m are n whole slices and crops of m slices."""
PAIRS_SEEN = 36_000
"""By each arm in its warm-up, so that all cost the same; a pair of frames is the unit of work."""
TOKENS_A_PAIR = 16
"""Frames of 112 px: 2.8 mm a pixel where whole slices are shown, 1.4 mm in a crop."""
BASE = (
    "phantom.seed=8",  # drawn for this study alone
    "phantom.num_train_patients=600",
    "phantom.num_valid_patients=400",
    "phantom.spacing_mm=[1.4, 1.4, 2.5]",
    "phantom.matrix_px=256",
    "phantom.nodule_mm=4.5",
    "phantom.second_reconstruction=0",
    "volume.spacing_mm=[1.4, 1.4, 2.5]",
    "slices.frame_size_px=[224, 224]",
    "pairs.validation_fraction=0.2",
)
"""Changes to the tiny recipe, which draws small lesions at twice their size: so does this."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study-nodules"))
    parser.add_argument("--cells", default="", help="e.g. 10-seed0,40+40-seed0; all without")
    chosen = parser.parse_args()
    names = set(chosen.cells.split(",")) - {""}
    draw_data(chosen.out)
    for wave in waves(names):
        work(partial(run_cell, chosen.out), wave)


def cells() -> list[tuple[str, int]]:
    """All of the study."""
    return [(arm, seed) for arm in ARMS for seed in SEEDS]


def waves(names: set[str]) -> Iterable[list[tuple[str, int]]]:
    """Cells still to be run that do not wait for each other; plain arms lead the second looks."""
    for seed in SEEDS:
        for again in (False, True):
            yield [
                (arm, seed)
                for arm, (_, crops) in ARMS.items()
                if (crops > 0) == again
                and not raw_path(arm, seed).exists()
                and (not names or f"{arm}-seed{seed}" in names)
            ]


def work(run: Callable[[tuple[str, int]], str], wave: list[tuple[str, int]]) -> None:
    """Runs cells side by side, one core each."""
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for name in pool.map(run, wave):
            print(name, flush=True)


def raw_path(arm: str, seed: int) -> Path:
    return RAW / f"{arm}-seed{seed}.json"


def recipe_of(slices: int, *changes: str, seed: int = 0) -> Recipe:
    budget = f"slices.token_budget={TOKENS_A_PAIR * slices // 2}"
    again = f"slices.second_look={max(crops for count, crops in ARMS.values() if count == slices)}"
    count, seeds = f"slices.num_slices={slices}", f"warm_up.seed={1000 + seed}"
    return read_recipe("tiny", (*BASE, count, budget, again, seeds, *changes))


def prepared_dir(out: Path, slices: int) -> Path:
    return out / f"prepared-{slices}"


def draw_data(out: Path) -> None:
    """Phantoms, prepared once for each number of slices; the volumes are not kept."""
    from ctscribe.data.prepare import prepare
    from ctscribe.phantom.dataset import write_dataset

    processes = os.cpu_count() or 1
    counts = sorted({slices for slices, _ in ARMS.values()})
    if not (RAW / "run.json").exists():
        shared = {"recipe": recipe_of(10).model_dump(mode="json"), "pairs_seen": PAIRS_SEEN}
        write_json(RAW / "run.json", {**shared, **provenance()})
    if all((prepared_dir(out, slices) / "studies.jsonl").exists() for slices in counts):
        return
    write_dataset(out / "data", recipe_of(10).phantom, processes=processes)
    for slices in counts:
        recipe = recipe_of(slices)
        prepare(
            *(out / "data", prepared_dir(out, slices), recipe.volume, recipe.slices),
            keep="slices",
            processes=processes,
        )
    shutil.rmtree(out / "data" / "dataset")


def run_cell(out: Path, cell: tuple[str, int]) -> str:
    """Warms one arm up and asks it about every scan of the validation and the test split."""
    import torch

    from ctscribe.learn.warm_up import warm_up
    from ctscribe.second_look.stage import second_look

    torch.set_num_threads(1)
    began = time.process_time()
    arm, seed = cell
    slices, crops = ARMS[arm]
    prepared = prepared_dir(out, slices)
    if crops:
        again = out / f"again-{slices}-seed{seed}"
        second_look(prepared, again, out / f"{slices}-seed{seed}", recipe_of(slices))
        prepared = again
    recipe = lesson(prepared, slices, crops, seed)
    folder = out / f"{arm}-seed{seed}"
    warm_up(folder, recipe, prepared, out / "data" / "truth.jsonl")
    found, scans = ask(folder, prepared, recipe, out / "data" / "truth.jsonl")
    lines = (json.dumps(scan) + "\n" for scan in scans)
    write_text(raw_path(arm, seed).with_suffix(".jsonl"), "".join(lines))
    facts = {"arm": arm, "seed": seed, "slices": slices, "crops": 2 * crops}
    facts |= {"epochs": recipe.warm_up.epochs, "cpu_s": round(time.process_time() - began, 1)}
    write_json(raw_path(arm, seed), {**facts, "auroc": found})
    return f"{arm}-seed{seed}"


def lesson(prepared: Path, slices: int, crops: int, seed: int) -> Recipe:
    """A warm-up from the shipped start, with as many passes as the pairs to be seen allow."""
    from ctscribe.data.splits import studies_of
    from ctscribe.learn.warm_up import shipped_start

    start = shipped_start(read_recipe("tiny"))
    if start is None:
        raise SystemExit("The tiny recipe no longer fits starts/tiny; run `make start` first.")
    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    fraction = recipe_of(slices).pairs.validation_fraction
    pairs = len(studies_of(studies, "train", fraction)) * (slices // 2 + crops)
    epochs = f"warm_up.epochs={max(1, round(PAIRS_SEEN / pairs))}"
    return recipe_of(slices, f"model.weights={start}", epochs, seed=seed)


def ask(
    folder: Path, prepared: Path, recipe: Recipe, truth: Path
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """How well each finding is seen in the test split, and the answers on every scan held out."""
    from nodules_alarms import answer

    from ctscribe.data.splits import studies_of
    from ctscribe.learn.model.teach import auroc
    from ctscribe.second_look.lead import load_leader
    from ctscribe.text.findings import FINDINGS

    leader = load_leader(folder, recipe.model.dtype)
    lesions = {row.volume_name: row.lesions for row in read_rows(truth, TruthRow)}
    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    scans: list[dict[str, Any]] = []
    for split in ("validation", "test"):
        asked = studies_of(studies, split, recipe.pairs.validation_fraction)
        answers = [answer(leader, prepared, study, lesions[study.volume_name]) for study in asked]
        scans += [{"split": split, **scan} for scan, _ in answers]
    logits = np.array([odds for _, odds in answers], np.float32)
    labels = np.array([study.labels for study in asked]) > 0
    each = (auroc(*columns) for columns in zip(logits.T, labels.T, strict=True))
    return dict(zip(FINDINGS, each, strict=True)), scans


if __name__ == "__main__":
    main()
