"""Where finding queries raise an alarm for nodules, and which of these are nodules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ctscribe.model.findings_head import CELLS_PER_SIDE
from ctscribe.model.qwen import encode_frames
from ctscribe.model.targets import CELL_PX
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import Lesion, StudyRow
from ctscribe.second_look.lead import Leader
from ctscribe.slices.cache import read_frames

NODULE = "Lung nodule"
ALARMS = 12
"""Kept of a scan, the surest first."""
NEAR_MM = 15.0
"""An alarm so near to a nodule's centre is a hit, and one so near to a surer alarm is the same:
half the diagonal of the coarsest cell, which is 20 mm wide."""


@torch.inference_mode()
def answer(
    leader: Leader, prepared: Path, study: StudyRow, lesions: Sequence[Lesion]
) -> tuple[dict[str, Any], Float[np.ndarray, "18"]]:
    """One scan: its patient, log-odds of a nodule, every nodule's size, alarms with the nodule hit.

    Returns:
        What the study keeps of the scan, and the log-odds of all findings.
    """
    frames = torch.from_numpy(np.array(read_frames(prepared, study.volume_name)))
    tokens = encode_frames(leader.qwen, [frames])
    cells, volume = leader.head(tokens, [len(tokens)])
    nodules = [lesion for lesion in lesions if lesion.finding == NODULE]
    boxes = np.array([nodule.box_mm for nodule in nodules], float).reshape(-1, 2, 3)
    pairs, height, width = len(frames) // 2, frames.shape[1] // 28, frames.shape[2] // 28
    index = FINDINGS.index(NODULE)
    grid = cells[..., index].reshape(pairs, height, width, CELLS_PER_SIDE, CELLS_PER_SIDE)
    log_odds = grid.transpose(2, 3).reshape(pairs, height * CELLS_PER_SIDE, -1).numpy()
    alarms = raise_alarms(log_odds, cell_centres(study, log_odds.shape), boxes.mean(1))
    kept = {
        "patient": study.patient_id,
        "log_odds": round(float(volume[0, index]), 3),
        "nodules_mm": [nodule.size_mm for nodule in nodules],
        "alarms": [[round(score, 2), hit] for score, hit in alarms],
    }
    return kept, volume[0].numpy()


def cell_centres(
    study: StudyRow, shape: tuple[int, ...]
) -> Float[np.ndarray, "pairs rows columns 3"]:
    """RAS+ mm of the middle of every cell of a study's frames, halfway between a pair's slices."""
    pairs, rows, columns = shape
    z = np.asarray(study.slice_indices, float).reshape(-1, 2).mean(1)
    whole = [study.frame_to_ras] * (study.num_whole // 2)
    centres = np.empty((pairs, rows, columns, 3))
    for pair, matrix in enumerate([*whole, *study.crop_to_ras]):
        down, across = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        px = [(axis + 0.5) * CELL_PX - 0.5 for axis in (across, down)]
        points = np.stack([*px, np.full(down.shape, z[pair]), np.ones(down.shape)], -1)
        centres[pair] = (points @ np.array(matrix).T)[..., :3]
    return centres


def raise_alarms(
    log_odds: Float[np.ndarray, "pairs rows columns"],
    centres_mm: Float[np.ndarray, "pairs rows columns 3"],
    nodules_mm: Float[np.ndarray, "nodules 3"],
) -> list[tuple[float, int]]:
    """The surest cells, none within `NEAR_MM` of a surer one, and the nodule each one hits.

    Returns:
        (log-odds, index of the nearest nodule within `NEAR_MM` or −1), the surest first.
    """
    left = log_odds.ravel().astype(float)
    places = centres_mm.reshape(-1, 3)
    alarms = []
    for _ in range(ALARMS):
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        away = np.linalg.norm(nodules_mm - places[best], axis=1)
        hit = int(away.argmin()) if len(away) and away.min() <= NEAR_MM else -1
        alarms.append((float(left[best]), hit))
        left[np.linalg.norm(places - places[best], axis=1) <= NEAR_MM] = -np.inf
    return alarms
