"""Small nodules against the number of slices, on phantoms.

``make study NAME=nodules``. Every arm, 10 to 80 slices, warms up the shipped start on as many pairs
of slices; then its queries are asked about every scan held out. Beside a cell's raw file lies one
line per scan: the log-odds that there is a nodule, its nodules' sizes, and where alarms are raised.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    SEEDS,
    Cell,
    Study,
    draw_phantoms,
    run_study,
    shown,
    table,
    warm_start,
)
from benchmarks.nodules import (
    FALSE_ALARMS,
    SMALL,
    STRATA,
    ask_all,
    coverage,
    findable,
    found,
    healthy,
    inside,
    small_auroc,
    test_scans,
)
from ctscribe.base.recipe import Recipe
from ctscribe.data.prepared import Prepared
from ctscribe.learn.warm_up import warm_up

SLICES = (10, 20, 40, 80)
TOKENS_A_PAIR = 16
"""Frames of 112 px, 2.8 mm a pixel."""
PAIRS_SEEN = 36_000
"""By each arm in its warm-up, so that all cost the same; a pair of frames is the unit of work."""
STUDY = Study(
    "nodules",
    [(str(slices), seed) for seed in SEEDS for slices in SLICES],
    (
        "phantom.seed=8",  # drawn for this study alone
        "phantom.num_train_patients=600",
        "phantom.num_valid_patients=400",
        "phantom.spacing_mm=[1.4, 1.4, 2.5]",
        "phantom.matrix_px=256",
        "phantom.nodule_mm=4.5",
        "phantom.second_reconstruction=0",
        "volume.spacing_mm=[1.4, 1.4, 2.5]",
        "slices.frame_size_px=[224, 224]",
        "splits.validation_fraction=0.2",
    ),
)
"""The tiny recipe draws small lesions at twice their size: so does this."""


def recipe_of(slices: int, *changes: str) -> Recipe:
    budget = f"slices.token_budget={TOKENS_A_PAIR * slices // 2}"
    return STUDY.recipe(f"slices.num_slices={slices}", budget, *changes)


def draw_data(out: Path) -> None:
    """Phantoms, prepared once for each number of slices; the volumes are not kept."""
    recipes = {out / f"prepared-{slices}": recipe_of(slices) for slices in SLICES}
    if not all((folder / "studies.jsonl").exists() for folder in recipes):
        draw_phantoms(out / "data", recipes)
        shutil.rmtree(out / "data" / "dataset")


def run_cell(out: Path, arm: str, seed: int) -> Cell:
    """Warms one arm up and asks it about every scan of the validation and the test split."""
    prepared, truth = Prepared(out / f"prepared-{arm}"), out / "data" / "truth.jsonl"
    pairs = len(prepared.split("train")) * int(arm) // 2
    epochs = max(1, round(PAIRS_SEEN / pairs))
    recipe = recipe_of(int(arm), f"warm_up.epochs={epochs}", f"warm_up.seed={1000 + seed}")
    folder = warm_up(out / f"{arm}-seed{seed}", recipe, prepared, truth, warm_start())
    lines_path = STUDY.raw(arm, seed).with_suffix(".jsonl")
    return {
        "slices": int(arm),
        "epochs": epochs,
        "auroc": ask_all(folder, prepared, truth, lines_path),
    }


def page(study: Study) -> dict[str, Any]:
    cells, scale = study.finished(), study.recipe().phantom.lesion_scale
    for arm, runs in cells.items():
        for cell in runs:
            cell["scans"] = test_scans(study, arm, cell["seed"], scale)
    scans = cells["10"][0]["scans"]
    counts = {"none": healthy(scans), **{name: inside(scans, name) for name in STRATA}}
    columns = (
        *("slices", "seeds", "passes"),
        *(f"Coverage, {name}" for name in STRATA),
        *(f"found at {each}" for each in FALSE_ALARMS),
        *("findable", f"AUROC, {SMALL}", "mean AUROC, 18 findings"),
    )
    return {
        "pairs_seen": PAIRS_SEEN,
        "arms": table(columns, [_row(arm, runs) for arm, runs in cells.items()]),
        "counted": ", ".join(f"{name} {which.sum()}" for name, which in counts.items()),
    }


def _row(arm: str, runs: Sequence[Cell]) -> tuple[object, ...]:
    aurocs = [[v for v in cell["auroc"].values() if v is not None] for cell in runs]
    return (
        *(arm, len(runs), runs[0]["epochs"]),
        *(shown(coverage(runs, stratum)) for stratum in STRATA),
        *(shown(found(runs, alarms)) for alarms in FALSE_ALARMS),
        f"{np.mean([findable(cell['scans']) for cell in runs]):.2f}",
        f"{np.mean([small_auroc(cell['scans'])[0] for cell in runs]):.3f}",
        f"{np.mean(aurocs):.3f}",
    )


if __name__ == "__main__":
    run_study(STUDY, draw_data, run_cell, page)
