"""Boxes in millimetres → which cells of visual tokens they cover."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from ctscribe.model.findings_head import CELLS_PER_SIDE
from ctscribe.model.qwen import MERGE, PATCH_PX
from ctscribe.reports.findings import FINDINGS
from ctscribe.slices.boxes import FrameBoxes

CELL_PX = PATCH_PX * MERGE // CELLS_PER_SIDE
_SHARE_OF_CELL, _SHARE_OF_BOX = 0.25, 0.3


def cell_targets(
    boxes: FrameBoxes,
    findings: Sequence[int],
    slice_indices: Sequence[int],
    frame_size_px: tuple[int, int],
    shift_px: tuple[int, int] = (0, 0),
) -> Float32[np.ndarray, "visual_tokens cells 18"]:
    """1 where a cell of a visual token shows a lesion.

    A cell counts when the lesion's box covers a quarter of it, or when it holds 30 % of the box's
    section: a box's corner is not a lesion, yet a nodule smaller than a cell is seen.

    Args:
        boxes: From `boxes_in_frames`.
        findings: Index into `FINDINGS` of each box.
        slice_indices: z index of each frame.
        frame_size_px: (height, width).
        shift_px: Rows and columns by which the frames were moved down and to the right.
    """
    rows, columns = (side // CELL_PX for side in frame_size_px)
    depth = np.asarray(slice_indices)
    targets = np.zeros((len(depth) // 2, rows, columns, len(FINDINGS)), np.float32)
    for box, finding in zip(boxes, findings, strict=True):
        touched = (depth >= box[2, 0] - 0.5) & (depth <= box[2, 1] + 0.5)
        pairs = touched.reshape(-1, 2).any(1)
        down = _overlap_px(box[1] + shift_px[0], rows)
        across = _overlap_px(box[0] + shift_px[1], columns)
        section = np.prod(box[:2, 1] - box[:2, 0] + 1)
        covered = down[:, None] * across
        shown = covered >= min(_SHARE_OF_CELL * CELL_PX**2, _SHARE_OF_BOX * section)
        targets[pairs, ..., finding] = np.maximum(targets[pairs, ..., finding], shown)
    side = CELLS_PER_SIDE
    tokens = targets.reshape(len(targets), rows // side, side, columns // side, side, -1)
    tokens = tokens.transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(tokens).reshape(-1, side * side, len(FINDINGS))


def _overlap_px(bounds: Float64[np.ndarray, "2"], cells: int) -> Float64[np.ndarray, "cells"]:
    """Pixels that an interval of pixel centres shares with each cell along one axis."""
    starts = np.arange(cells) * CELL_PX - 0.5
    low = np.maximum(starts, bounds[0] - 0.5)
    high = np.minimum(starts + CELL_PX, bounds[1] + 0.5)
    return np.asarray(np.clip(high - low, 0, None))
