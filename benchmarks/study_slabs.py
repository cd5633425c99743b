"""Slices in their slabs against the slices alone, on phantoms.

``make study NAME=slabs``. On a coarse grid 18 findings are asked about, on a fine one small
nodules at their true size. Both arms of a grid warm up the shipped start on the same patients, for
as many passes, at as many visual tokens.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    SEEDS,
    Cell,
    Draws,
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
    ask_all,
    coverage,
    drawn_auroc,
    findable,
    found,
    healthy,
    inside,
    scan_weights,
    small_auroc,
    test_scans,
)
from ctscribe.base.recipe import Recipe
from ctscribe.data.prepared import Prepared
from ctscribe.learn.warm_up import warm_up
from ctscribe.text.findings import FINDINGS

PATIENTS = {
    "coarse": (
        "phantom.seed=9",
        "phantom.num_train_patients=600",
        "phantom.num_valid_patients=400",
        "phantom.burden=0.7",  # more of everything, so that fewer patients tell
    ),
    "fine": (
        "phantom.seed=10",
        "phantom.num_train_patients=400",
        "phantom.num_valid_patients=400",
        "phantom.spacing_mm=[1.4, 1.4, 2.5]",
        "phantom.matrix_px=256",
        "phantom.nodule_mm=4.5",
        "phantom.lesion_scale=1",
        "volume.spacing_mm=[1.4, 1.4, 2.5]",
        "slices.frame_size_px=[224, 224]",
        "slices.token_budget=640",
    ),
}
"""Drawn for this study alone, and the grid that they are shown on."""
SLICES = {"coarse10": 10, "coarse": 20, "fine": 20}
ARMS = {"thin": "none", "slab": "slab"}
PASSES = {"coarse10": 8, "coarse": 4, "fine": 3}
STUDY = Study(
    "slabs",
    [
        *((f"{shown}-{arm}", 0) for shown in ("coarse", "fine", "coarse10") for arm in ARMS),
        *((f"{shown}-{arm}", seed) for seed in SEEDS[1:] for shown in SLICES for arm in ARMS),
    ],
    ("phantom.second_reconstruction=0", "splits.validation_fraction=0.2"),
)


def recipe_of(slices: str, arm: str, *changes: str) -> Recipe:
    """Of a key of `SLICES`, whose first letters name the patients."""
    knobs = f"slices.num_slices={SLICES[slices]}", f"slices.projection={ARMS[arm]}"
    return STUDY.recipe(*PATIENTS[slices.rstrip("0123456789")], *knobs, *changes)


def draw_data(out: Path) -> None:
    """Phantoms, prepared once for each number of slices and arm; the volumes are not kept."""
    for patients in PATIENTS:
        several = [name for name in SLICES if name.startswith(patients)]
        recipes = {out / name / arm: recipe_of(name, arm) for name in several for arm in ARMS}
        if not all((folder / "studies.jsonl").exists() for folder in recipes):
            draw_phantoms(out / patients / "data", recipes)
            shutil.rmtree(out / patients / "data" / "dataset")


def run_cell(out: Path, cell: str, seed: int) -> Cell:
    """Warms one arm up and asks it about every scan of the validation and the test split."""
    slices, arm = cell.split("-")
    truth = out / slices.rstrip("0123456789") / "data" / "truth.jsonl"
    prepared = Prepared(out / slices / arm)
    knobs = f"warm_up.epochs={PASSES[slices]}", f"warm_up.seed={1000 + seed}"
    recipe = recipe_of(slices, arm, *knobs)
    folder = warm_up(out / f"{cell}-seed{seed}", recipe, prepared, truth, warm_start())
    lines_path = STUDY.raw(cell, seed).with_suffix(".jsonl")
    return {"epochs": PASSES[slices], "auroc": ask_all(folder, prepared, truth, lines_path)}


def page(study: Study) -> dict[str, Any]:
    """Of all cells that have ended; the first ones of both grids must have."""
    cells = study.ended()
    for cell, runs in cells.items():
        for run in runs:
            scale = recipe_of(*cell.split("-")).phantom.lesion_scale
            run["scans"] = test_scans(study, cell, run["seed"], scale)
    by_slices = {
        name: {arm: cells[f"{name}-{arm}"] for arm in ARMS}
        for name in SLICES
        if all(f"{name}-{arm}" in cells for arm in ARMS)
    }
    scans = by_slices["fine"]["thin"][0]["scans"]
    coarse = [
        f"{SLICES[name]} slices, {PASSES[name]} passes, seeds: {len(arms['slab'])}.\n\n"
        + _findings(arms["thin"], arms["slab"])
        for name, arms in by_slices.items()
        if name != "fine"
    ]
    return {
        "recipes": {name: recipe_of(name, "slab").model_dump(mode="json") for name in PATIENTS},
        "passes": PASSES,
        "findings": "\n\n".join(coarse),
        "nodules": _nodules(by_slices["fine"]),
        "counted": f"none {healthy(scans).sum()}, {SMALL} {inside(scans, SMALL).sum()}",
    }


def _findings(thin: Sequence[Cell], slab: Sequence[Cell]) -> str:
    """AUROC per finding; a difference's interval draws the same patients for both arms."""
    ours, theirs = _aurocs(slab), _aurocs(thin)
    rows = [("all 18, mean", theirs.mean(0), ours.mean(0))]
    rows += list(zip(FINDINGS, theirs, ours, strict=True))
    told = [(name, f"{a[0]:.3f}", f"{b[0]:.3f}", shown(b - a, "+.3f")) for name, a, b in rows]
    return table(("finding", "slices", "in slabs", "difference"), told)


def _aurocs(runs: Sequence[Cell]) -> np.ndarray:
    """[18, draws], mean over seeds."""
    by_seed = []
    for scans in (run["scans"] for run in runs):
        odds = np.array([scan["all_odds"] for scan in scans]).T
        truth = np.array([scan["labels"] for scan in scans]).T > 0
        drawn = scan_weights(scans)
        by_seed.append([drawn_auroc(o, t, drawn) for o, t in zip(odds, truth, strict=True)])
    return np.asarray(np.mean(by_seed, axis=0))


def _nodules(fine: dict[str, list[Cell]]) -> str:
    columns = (
        *("frames show", "seeds", f"AUROC, {SMALL}", f"Coverage, {SMALL}"),
        *(f"found at {each}" for each in FALSE_ALARMS),
        "findable",
    )
    scores = {arm: _scores(runs) for arm, runs in fine.items()}
    told = {"thin": "slices alone", "slab": "slices in slabs"}
    rows: list[tuple[object, ...]] = [
        (
            *(told[arm], len(runs), *map(shown, scores[arm])),
            f"{np.mean([findable(run['scans']) for run in runs]):.2f}",
        )
        for arm, runs in fine.items()
    ]
    auroc, *others = zip(scores["slab"], scores["thin"], strict=True)
    times = (shown(slab / thin, ".2f") for slab, thin in others)
    rows.append(
        ("difference of AUROC, times of others", "", shown(auroc[0] - auroc[1], "+.3f"), *times, "")
    )
    return table(columns, rows)


def _scores(runs: Sequence[Cell]) -> list[Draws]:
    small = np.mean([small_auroc(run["scans"]) for run in runs], axis=0)
    return [small, coverage(runs, SMALL), *(found(runs, each) for each in FALSE_ALARMS)]


if __name__ == "__main__":
    run_study(STUDY, draw_data, run_cell, page)
