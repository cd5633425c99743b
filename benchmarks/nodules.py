"""Asking a warmed tower about nodules: its alarms, and what they are worth.

In: a warm-up and a prepared data set with its truth. Out: one line per scan, kept beside a cell's
raw file, and scores of the lines of the test split.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.harness import SPLITS, Cell, Draws, Study, weights
from ctscribe.base.files import write_text
from ctscribe.base.rows import Lesion, StudyRow, TruthRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.cells import CELLS_PER_SIDE, cell_targets
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import FindingsHead, locate_findings, read_warmed_head
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.teach import auroc
from ctscribe.learn.model.tower import encode_frames
from ctscribe.measure.intervals import patient_index
from ctscribe.scan.boxes import boxes_in_frames, reach_of_frames
from ctscribe.text.findings import FINDINGS

ALARMS = 12
"""Kept of a scan, the surest first."""
NEAR_MM = 15.0
"""An alarm so near to a nodule's centre is a hit, and one so near to a surer alarm is the same:
half the diagonal of the coarsest cell, which is 20 mm wide."""
NODULE = FINDINGS.index("Lung nodule")
_CELL_PX = QWEN2_5_VL.token_px // CELLS_PER_SIDE
SPECIFICITY = 0.9
FALSE_ALARMS = (1, 4)
"""Per scan, as nodule detectors are compared."""
STRATA = {"< 6 mm": (0.5, 6.0), "6–8 mm": (6.0, 8.5), "> 8 mm": (8.5, 99.0)}
"""Of the largest nodule, in whole millimetres before small lesions are enlarged."""
SMALL = "< 6 mm"
Grid = Float[np.ndarray, "pairs rows columns"]
Places = Float[np.ndarray, "pairs rows columns 2 3"]
Scan = Mapping[str, Any]
"""What `answer` keeps of one scan."""


def ask_all(folder: Path, prepared: Prepared, truth: Path, lines_path: Path) -> dict[str, Any]:
    """Asks a warm-up about every scan of the validation and the test split.

    Writes one line per scan; returns the AUROC of each finding on the test split.
    """
    qwen, _ = load_model(folder, "float32")
    head = FindingsHead(qwen.config.text_config.hidden_size)
    head.load_state_dict(read_warmed_head(folder) or {})
    lesions = {row.volume_name: row.lesions for row in read_rows(truth, TruthRow)}
    lines, logits, labels = [], [], []
    for split in SPLITS:
        for study in prepared.split(split):
            kept, odds = answer(qwen.eval(), head, prepared, study, lesions[study.volume_name])
            lines.append(json.dumps({"split": split, **kept}) + "\n")
            if split == "test":
                logits.append(odds)
                labels.append(study.labels)
    write_text(lines_path, "".join(lines))
    columns = zip(np.array(logits, np.float32).T, np.array(labels).T > 0, strict=True)
    return dict(zip(FINDINGS, (auroc(*column) for column in columns), strict=True))


@torch.inference_mode()
def answer(
    qwen: Qwen2_5_VLForConditionalGeneration,
    head: FindingsHead,
    prepared: Prepared,
    study: StudyRow,
    lesions: Sequence[Lesion],
) -> tuple[dict[str, Any], Float32[np.ndarray, "18"]]:
    """What is kept of one scan, and the log-odds of all findings.

    Kept are its patient, its labels, the log-odds of a nodule and of all findings, every nodule's
    size, which nodules alarms without fault would hit, and the alarms raised with the nodule that
    each one hits.
    """
    frames = torch.from_numpy(np.array(prepared.frames(study)))
    slices, height, width, _ = frames.shape
    tokens = encode_frames(qwen, [frames])
    seen = locate_findings(
        head, tokens, (slices // 2, height // QWEN2_5_VL.patch_px, width // QWEN2_5_VL.patch_px)
    )
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
        "log_odds": round(float(seen.logits[NODULE]), 4),
        "all_odds": [round(odds, 4) for odds in seen.logits.tolist()],
        "labels": study.labels,
        "nodules_mm": [nodule.size_mm for nodule in nodules],
        "findable": [number in findable for number in range(len(nodules))],
        "alarms": [[round(score, 2), hit] for score, hit in alarms],
    }
    return kept, seen.logits.numpy()


def true_cells(study: StudyRow, nodules: Sequence[Lesion], size_px: tuple[int, int]) -> Grid:
    """Log-odds without fault: 0 where a cell shows a nodule, −∞ elsewhere."""
    boxes = boxes_in_frames(study, [nodule.box_mm for nodule in nodules])
    targets = cell_targets(
        boxes, [NODULE] * len(nodules), reach_of_frames(study), size_px, side_px=_CELL_PX
    )
    rows, columns = (px // _CELL_PX // CELLS_PER_SIDE for px in size_px)
    side = CELLS_PER_SIDE
    grid = targets[..., NODULE].reshape(-1, rows, columns, side, side).transpose(0, 1, 3, 2, 4)
    return np.where(grid.reshape(-1, rows * side, columns * side) > 0, 0.0, -np.inf)


def cell_places(study: StudyRow, shape: tuple[int, ...]) -> Places:
    """RAS+ mm of the middle of every cell of a study's frames, in both slices of its pair."""
    pair, row, column, side = np.indices((*shape, 2))
    z = np.asarray(study.slice_indices, float).reshape(-1, 2)[pair, side]
    px = [(axis + 0.5) * _CELL_PX - 0.5 for axis in (column, row)]
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


def test_scans(study: Study, arm: str, seed: int, scale: float) -> list[dict[str, Any]]:
    """A cell's test scans, whose nodules have the size before they were enlarged by ``scale``."""
    lines = study.raw(arm, seed).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    scans = [scan for scan in map(json.loads, lines) if scan["split"] == "test"]
    return [scan | {"nodules_mm": [mm / scale for mm in scan["nodules_mm"]]} for scan in scans]


def inside(scans: Sequence[Scan], stratum: str) -> np.ndarray:
    """Whether each scan's largest nodule is of that size, bool [scans]."""
    low, high = STRATA[stratum]
    largest = np.array([max(scan["nodules_mm"], default=0) for scan in scans])
    return np.asarray((low <= largest) & (largest < high))


def healthy(scans: Sequence[Scan]) -> np.ndarray:
    """Whether each scan is without nodules."""
    return np.array([not scan["nodules_mm"] for scan in scans])


def scan_weights(scans: Sequence[Scan]) -> Float64[np.ndarray, "draws scans"]:
    """How often each scan counts; see `weights`."""
    return weights(patient_index([scan["patient"] for scan in scans]))


def coverage(runs: Sequence[Cell], stratum: str) -> Draws:
    """Coverage among scans of a stratum.

    Each draw has its own point of 90 % specificity, so the interval holds that choice too.
    """
    above, below = 0.0, 0.0
    for scans in (cell["scans"] for cell in runs):
        odds = np.array([scan["log_odds"] for scan in scans])
        without, drawn = healthy(scans), scan_weights(scans)
        order = np.argsort(odds[without])
        mass = drawn[:, without][:, order].cumsum(1)
        last = (mass < SPECIFICITY * mass[:, -1:]).sum(1)
        stated = odds > odds[without][order][last][:, None]
        counted = drawn * inside(scans, stratum)
        above, below = above + (counted * stated).sum(1), below + counted.sum(1)
    return np.asarray(above / below)


def small_auroc(scans: Sequence[Scan]) -> Draws:
    """Of scans whose largest nodule is under 6 mm against scans without."""
    odds = np.array([scan["log_odds"] for scan in scans])
    small = inside(scans, SMALL)
    return drawn_auroc(odds, small, scan_weights(scans) * (small | healthy(scans)))


def drawn_auroc(
    odds: Float[np.ndarray, "scans"],
    truth: Bool[np.ndarray, "scans"],
    drawn: Float64[np.ndarray, "draws scans"],
) -> Draws:
    """Area under the ROC curve with and without each patient, ties counting half."""
    order = np.argsort(odds)
    groups = np.flatnonzero(np.diff(odds[order], prepend=-np.inf))
    cases, controls = (
        np.add.reduceat(drawn[:, order] * which[order], groups, axis=1) for which in (truth, ~truth)
    )
    above = (cases * (controls.cumsum(1) - controls / 2)).sum(1)
    return np.asarray(above / (cases.sum(1) * controls.sum(1)))


def found(runs: Sequence[Cell], alarms: int) -> Draws:
    """Share of nodules under 6 mm that an alarm hits, at so many false alarms a scan."""
    above, below = 0.0, 0.0
    for scans in (cell["scans"] for cell in runs):
        false = sorted((odds for scan in scans for odds, hit in scan["alarms"] if hit < 0))[::-1]
        threshold = false[min(alarms * len(scans), len(false) - 1)]
        small = list(map(_small, scans))
        hit = [{nodule for odds, nodule in s["alarms"] if odds > threshold} for s in scans]
        drawn = scan_weights(scans)
        above += drawn @ np.array([len(a & b) for a, b in zip(small, hit, strict=True)])
        below += drawn @ np.array([len(each) for each in small])
    return np.asarray(above / below)


def findable(scans: Sequence[Scan]) -> float:
    """Share of nodules under 6 mm that alarms without fault would hit."""
    return float(np.mean([scan["findable"][n] for scan in scans for n in _small(scan)]))


def _small(scan: Scan) -> set[int]:
    """Which of a scan's nodules are under 6 mm."""
    return {n for n, mm in enumerate(scan["nodules_mm"]) if mm < STRATA[SMALL][1]}
