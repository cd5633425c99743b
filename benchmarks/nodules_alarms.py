"""Where finding queries raise an alarm for nodules, and which of these are nodules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from ctscribe.base.rows import Lesion, StudyRow
from ctscribe.data.prepared import read_frames
from ctscribe.learn.model.finding_queries import CELL_PX, CELLS_PER_SIDE, cell_targets, look
from ctscribe.learn.model.patches import PATCH_PX
from ctscribe.learn.model.qwen import encode_frames
from ctscribe.scan.boxes import boxes_in_frames
from ctscribe.second_look.lead import Leader
from ctscribe.text.findings import FINDINGS

NODULE = "Lung nodule"
ALARMS = 12
"""Kept of a scan, the surest first."""
NEAR_MM = 15.0
"""An alarm so near to a nodule's centre is a hit, and one so near to a surer alarm is the same:
half the diagonal of the coarsest cell, which is 20 mm wide."""
_INDEX = FINDINGS.index(NODULE)


@torch.inference_mode()
def answer(
    leader: Leader, prepared: Path, study: StudyRow, lesions: Sequence[Lesion]
) -> tuple[dict[str, Any], Float32[np.ndarray, "18"]]:
    """What the study keeps of one scan, and the log-odds of all findings.

    Kept are its patient, the log-odds of a nodule, every nodule's size, which nodules alarms
    without fault would hit, and the alarms raised with the nodule that each one hits.

    Args:
        leader: Is asked.
        prepared: Where the scan's frames are.
        study: The scan.
        lesions: Its truth.
    """
    frames = torch.from_numpy(np.array(read_frames(prepared, study.volume_name)))
    slices, height, width, _ = frames.shape
    tokens = encode_frames(leader.qwen, [frames])
    seen = look(leader.head, tokens, (slices // 2, height // PATCH_PX, width // PATCH_PX))
    # attention is a softmax over the cells, whose log-sum-exp is the volume's logit but for a bias
    cells = seen.maps[_INDEX].log() + seen.logits[_INDEX] - leader.head.volume_bias[_INDEX]
    nodules = [lesion for lesion in lesions if lesion.finding == NODULE]
    centres_mm = np.array([nodule.box_mm for nodule in nodules], float).reshape(-1, 2, 3).mean(1)
    places_mm = cell_places(study, tuple(cells.shape))
    without_fault = raise_alarms(_truth(study, nodules, (height, width)), places_mm, centres_mm)
    findable = {hit for _, hit in without_fault}
    kept = {
        "patient": study.patient_id,
        "log_odds": round(float(seen.logits[_INDEX]), 3),
        "nodules_mm": [nodule.size_mm for nodule in nodules],
        "findable": [number in findable for number in range(len(nodules))],
        "alarms": [
            [round(score, 2), hit]
            for score, hit in raise_alarms(cells.numpy(), places_mm, centres_mm)
        ],
    }
    return kept, seen.logits.numpy()


def _truth(
    study: StudyRow, nodules: Sequence[Lesion], size_px: tuple[int, int]
) -> Float32[np.ndarray, "pairs rows columns"]:
    """Log-odds without fault: 0 where a cell shows a nodule, −∞ elsewhere."""
    boxes = boxes_in_frames(study, [nodule.box_mm for nodule in nodules])
    shown = cell_targets(boxes, [_INDEX] * len(nodules), study.slice_indices, size_px)[..., _INDEX]
    rows, columns = (px // CELL_PX // CELLS_PER_SIDE for px in size_px)
    side = CELLS_PER_SIDE
    grid = shown.reshape(-1, rows, columns, side, side).transpose(0, 1, 3, 2, 4)
    return np.where(grid.reshape(-1, rows * side, columns * side) > 0, 0.0, -np.inf)


def cell_places(
    study: StudyRow, shape: tuple[int, ...]
) -> Float[np.ndarray, "pairs rows columns 2 3"]:
    """RAS+ mm of the middle of every cell of a study's frames, in both slices of its pair."""
    pairs, rows, columns = shape
    z = np.asarray(study.slice_indices, float).reshape(-1, 2)
    matrices = [*[study.frame_to_ras] * (study.num_whole // 2), *study.crop_to_ras]
    row, column, side = np.indices((rows, columns, 2))
    places = np.empty((pairs, rows, columns, 2, 3))
    for pair, matrix in enumerate(matrices):
        px = [(axis + 0.5) * CELL_PX - 0.5 for axis in (column, row)]
        points = np.stack([*px, z[pair][side], np.ones(side.shape)], -1)
        places[pair] = (points @ np.array(matrix).T)[..., :3]
    return places


def raise_alarms(
    log_odds: Float[np.ndarray, "pairs rows columns"],
    places_mm: Float[np.ndarray, "pairs rows columns 2 3"],
    nodules_mm: Float[np.ndarray, "nodules 3"],
) -> list[tuple[float, int]]:
    """The surest cells, none within `NEAR_MM` of a surer one; a cell lies in both of its slices.

    Args:
        log_odds: Of a nodule, −∞ where none may be.
        places_mm: From `cell_places`.
        nodules_mm: Centres.

    Returns:
        (log-odds, index of the nearest nodule within `NEAR_MM` or −1), the surest first.
    """
    left = log_odds.ravel().astype(float)
    places = places_mm.reshape(-1, 2, 3)
    alarms = []
    while len(alarms) < ALARMS and left.max() > -np.inf:
        best = int(left.argmax())
        away = np.linalg.norm(nodules_mm[:, None] - places[best], axis=2).min(1)
        hit = int(away.argmin()) if len(away) and away.min() <= NEAR_MM else -1
        alarms.append((float(left[best]), hit))
        apart = np.linalg.norm(places[:, :, None] - places[best], axis=3).min((1, 2))
        left[apart <= NEAR_MM] = -np.inf
    return alarms
