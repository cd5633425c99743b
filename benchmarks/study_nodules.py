"""Small nodules against the number of slices, on phantoms.

``make study NAME=nodules``. Every arm, 10 to 80 slices, warms up the shipped start on as many pairs
of slices; then its queries are asked about every scan held out. Beside a cell's raw file lies one
line per scan: the log-odds that there is a nodule, its nodules' sizes, and where alarms are raised.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.harness import (
    SEEDS,
    SPLITS,
    Cell,
    Draws,
    Study,
    draw_phantoms,
    run_study,
    shown,
    table,
    warm_start,
    weights,
)
from ctscribe.base.files import write_text
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import Lesion, StudyRow, TruthRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.cells import CELL_PX, CELLS_PER_SIDE, cell_targets
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import FindingsHead, locate_findings, warmed_head
from ctscribe.learn.model.teach import auroc
from ctscribe.learn.model.tower import PATCH_PX, encode_frames
from ctscribe.learn.warm_up import warm_up
from ctscribe.measure.intervals import patient_index
from ctscribe.scan.boxes import boxes_in_frames, reach_of_frames
from ctscribe.text.findings import FINDINGS

SLICES = (10, 20, 40, 80)
TOKENS_A_PAIR = 16
"""Frames of 112 px, 2.8 mm a pixel."""
ALARMS = 12
"""Kept of a scan, the surest first."""
NEAR_MM = 15.0
"""An alarm so near to a nodule's centre is a hit, and one so near to a surer alarm is the same:
half the diagonal of the coarsest cell, which is 20 mm wide."""
NODULE = FINDINGS.index("Lung nodule")
PAIRS_SEEN = 36_000
"""By each arm in its warm-up, so that all cost the same; a pair of frames is the unit of work."""
SPECIFICITY = 0.9
FALSE_ALARMS = (1, 4)
"""Per scan, as nodule detectors are compared."""
STRATA = {"< 6 mm": (0.5, 6.0), "6–8 mm": (6.0, 8.5), "> 8 mm": (8.5, 99.0)}
"""Of the largest nodule, in whole millimetres before small lesions are enlarged."""
SMALL = "< 6 mm"
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
Grid = Float[np.ndarray, "pairs rows columns"]
Places = Float[np.ndarray, "pairs rows columns 2 3"]


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
    qwen, _ = load_model(folder, recipe.model.dtype)
    head = FindingsHead(qwen.config.text_config.hidden_size)
    head.load_state_dict(warmed_head(folder) or {})
    lesions = {row.volume_name: row.lesions for row in read_rows(truth, TruthRow)}
    lines, logits, labels = [], [], []
    for split in SPLITS:
        for study in prepared.split(split):
            kept, odds = answer(qwen.eval(), head, prepared, study, lesions[study.volume_name])
            lines.append(json.dumps({"split": split, **kept}) + "\n")
            if split == "test":
                logits.append(odds)
                labels.append(study.labels)
    write_text(STUDY.raw(arm, seed).with_suffix(".jsonl"), "".join(lines))
    columns = zip(np.array(logits, np.float32).T, np.array(labels).T > 0, strict=True)
    found = dict(zip(FINDINGS, (auroc(*column) for column in columns), strict=True))
    return {"slices": int(arm), "epochs": epochs, "auroc": found}


@torch.inference_mode()
def answer(
    qwen: Qwen2_5_VLForConditionalGeneration,
    head: FindingsHead,
    prepared: Prepared,
    study: StudyRow,
    lesions: Sequence[Lesion],
) -> tuple[dict[str, Any], Float32[np.ndarray, "18"]]:
    """What is kept of one scan, and the log-odds of all findings.

    Kept are its patient, the log-odds of a nodule, every nodule's size, which nodules alarms
    without fault would hit, and the alarms raised with the nodule that each one hits.
    """
    frames = torch.from_numpy(np.array(prepared.frames(study)))
    slices, height, width, _ = frames.shape
    tokens = encode_frames(qwen, [frames])
    seen = locate_findings(head, tokens, (slices // 2, height // PATCH_PX, width // PATCH_PX))
    # attention is a softmax over the cells, whose log-sum-exp is the volume's logit but for a bias
    cells = seen.maps[NODULE].log() + seen.logits[NODULE] - head.volume_bias[NODULE]
    nodules = [lesion for lesion in lesions if lesion.finding == FINDINGS[NODULE]]
    centres_mm = np.array([nodule.box_mm for nodule in nodules], float).reshape(-1, 2, 3).mean(1)
    places_mm = cell_places(study, tuple(cells.shape))
    faultless = raise_alarms(true_cells(study, nodules, (height, width)), places_mm, centres_mm)
    findable = {hit for _, hit in faultless}
    alarms = raise_alarms(cells.numpy(), places_mm, centres_mm)
    kept = {
        "patient": study.patient_id,
        "log_odds": round(float(seen.logits[NODULE]), 3),
        "nodules_mm": [nodule.size_mm for nodule in nodules],
        "findable": [number in findable for number in range(len(nodules))],
        "alarms": [[round(score, 2), hit] for score, hit in alarms],
    }
    return kept, seen.logits.numpy()


def true_cells(study: StudyRow, nodules: Sequence[Lesion], size_px: tuple[int, int]) -> Grid:
    """Log-odds without fault: 0 where a cell shows a nodule, −∞ elsewhere."""
    boxes = boxes_in_frames(study, [nodule.box_mm for nodule in nodules])
    targets = cell_targets(boxes, [NODULE] * len(nodules), reach_of_frames(study), size_px)
    rows, columns = (px // CELL_PX // CELLS_PER_SIDE for px in size_px)
    side = CELLS_PER_SIDE
    grid = targets[..., NODULE].reshape(-1, rows, columns, side, side).transpose(0, 1, 3, 2, 4)
    return np.where(grid.reshape(-1, rows * side, columns * side) > 0, 0.0, -np.inf)


def cell_places(study: StudyRow, shape: tuple[int, ...]) -> Places:
    """RAS+ mm of the middle of every cell of a study's frames, in both slices of its pair."""
    pair, row, column, side = np.indices((*shape, 2))
    z = np.asarray(study.slice_indices, float).reshape(-1, 2)[pair, side]
    px = [(axis + 0.5) * CELL_PX - 0.5 for axis in (column, row)]
    points = np.stack([*px, z, np.ones(z.shape)], -1)
    return np.asarray((points @ np.array(study.frame_to_ras).T)[..., :3])


def raise_alarms(
    log_odds: Grid, places_mm: Places, nodules_mm: Float[np.ndarray, "nodules 3"]
) -> list[tuple[float, int]]:
    """The surest cells, none within `NEAR_MM` of a surer one; a cell lies in both of its slices.

    Returns:
        (log-odds, index of the nearest nodule within `NEAR_MM` or −1), the surest first.
    """
    left = log_odds.ravel().astype(float)
    places = places_mm.reshape(-1, 2, 3)
    alarms: list[tuple[float, int]] = []
    while len(alarms) < ALARMS and left.max() > -np.inf:
        best = int(left.argmax())
        away = np.linalg.norm(nodules_mm[:, None] - places[best], axis=2).min(1)
        hit = int(away.argmin()) if len(away) and away.min() <= NEAR_MM else -1
        alarms.append((float(left[best]), hit))
        apart = np.linalg.norm(places[:, :, None] - places[best], axis=3).min((1, 2))
        left[apart <= NEAR_MM] = -np.inf
    return alarms


def page(study: Study) -> dict[str, Any]:
    cells = study.finished()
    for arm, runs in cells.items():
        for cell in runs:
            cell["scans"] = _test_scans(study, arm, cell["seed"])
    scans = cells["10"][0]["scans"]
    counts = {"none": _healthy(scans), **{name: _inside(scans, name) for name in STRATA}}
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


def _test_scans(study: Study, arm: str, seed: int) -> list[dict[str, Any]]:
    """A cell's test scans, whose nodules have the size before they were enlarged."""
    scale = study.recipe().phantom.lesion_scale
    lines = study.raw(arm, seed).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    scans = [scan for scan in map(json.loads, lines) if scan["split"] == "test"]
    return [scan | {"nodules_mm": [mm / scale for mm in scan["nodules_mm"]]} for scan in scans]


def _row(arm: str, runs: Sequence[Cell]) -> tuple[object, ...]:
    aurocs = [[v for v in cell["auroc"].values() if v is not None] for cell in runs]
    return (
        *(arm, len(runs), runs[0]["epochs"]),
        *(shown(_coverage(runs, stratum)) for stratum in STRATA),
        *(shown(_found(runs, alarms)) for alarms in FALSE_ALARMS),
        f"{np.mean([_findable(cell['scans']) for cell in runs]):.2f}",
        f"{np.mean([_small_auroc(cell['scans']) for cell in runs]):.3f}",
        f"{np.mean(aurocs):.3f}",
    )


def _inside(scans: Sequence[Mapping[str, Any]], stratum: str) -> np.ndarray:
    """Whether each scan's largest nodule is of that size, bool [scans]."""
    low, high = STRATA[stratum]
    largest = np.array([max(scan["nodules_mm"], default=0) for scan in scans])
    return np.asarray((low <= largest) & (largest < high))


def _healthy(scans: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([not scan["nodules_mm"] for scan in scans])


def _weights(scans: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return weights(patient_index([scan["patient"] for scan in scans]))


def _coverage(runs: Sequence[Cell], stratum: str) -> Draws:
    """Coverage among scans of a stratum.

    Each draw has its own point of 90 % specificity, so the interval holds that choice too.
    """
    above, below = 0.0, 0.0
    for scans in (cell["scans"] for cell in runs):
        odds = np.array([scan["log_odds"] for scan in scans])
        healthy, drawn = _healthy(scans), _weights(scans)
        order = np.argsort(odds[healthy])
        mass = drawn[:, healthy][:, order].cumsum(1)
        last = (mass < SPECIFICITY * mass[:, -1:]).sum(1)
        stated = odds > odds[healthy][order][last][:, None]
        inside = drawn * _inside(scans, stratum)
        above, below = above + (inside * stated).sum(1), below + inside.sum(1)
    return np.asarray(above / below)


def _small_auroc(scans: Sequence[Mapping[str, Any]]) -> float:
    """Of scans whose largest nodule is under 6 mm against scans without."""
    odds = np.array([scan["log_odds"] for scan in scans], np.float32)
    small = _inside(scans, SMALL)
    asked = small | _healthy(scans)
    value = auroc(odds[asked], small[asked])
    assert value is not None  # both kinds are drawn by the dozen
    return value


def _found(runs: Sequence[Cell], alarms: int) -> Draws:
    """Share of nodules under 6 mm that an alarm hits, at so many false alarms a scan."""
    above, below = 0.0, 0.0
    for scans in (cell["scans"] for cell in runs):
        false = sorted((odds for scan in scans for odds, hit in scan["alarms"] if hit < 0))[::-1]
        threshold = false[min(alarms * len(scans), len(false) - 1)]
        small = list(map(_small, scans))
        hit = [{nodule for odds, nodule in s["alarms"] if odds > threshold} for s in scans]
        drawn = _weights(scans)
        above += drawn @ np.array([len(a & b) for a, b in zip(small, hit, strict=True)])
        below += drawn @ np.array([len(each) for each in small])
    return np.asarray(above / below)


def _findable(scans: Sequence[Mapping[str, Any]]) -> float:
    """Share of nodules under 6 mm that alarms without fault would hit."""
    return float(np.mean([scan["findable"][n] for scan in scans for n in _small(scan)]))


def _small(scan: Mapping[str, Any]) -> set[int]:
    """Which of a scan's nodules are under 6 mm."""
    return {n for n, mm in enumerate(scan["nodules_mm"]) if mm < STRATA[SMALL][1]}


if __name__ == "__main__":
    run_study(STUDY, draw_data, run_cell, page)
