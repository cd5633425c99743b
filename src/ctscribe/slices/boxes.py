"""Boxes in millimetres → where they lie in a study's frames."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64

from ctscribe.rows import StudyRow
from ctscribe.types import Affine, BoxMm

FrameBoxes = Float64[np.ndarray, "pairs lesions 3 2"]
"""Lower and upper bound along (column px, row px, z index), in each pair of a study's frames."""


def boxes_in_frames(study: StudyRow, boxes_mm: Sequence[BoxMm]) -> FrameBoxes:
    """Maps boxes from RAS+ mm to each pair of a study's frames; pixel centres are whole numbers.

    Pairs that show whole slices agree; a crop sees the same box elsewhere, and larger.
    """
    corners = np.array(
        [[*corner, 1.0] for box in boxes_mm for corner in product(*zip(*box, strict=True))]
    )
    corners = corners.reshape(-1, 4)
    crops = [np.array(matrix) for matrix in study.crop_to_ras]
    placed = [_bounds(corners, matrix) for matrix in (np.array(study.frame_to_ras), *crops)]
    return np.stack([*[placed[0]] * (study.num_whole // 2), *placed[1:]])


def _bounds(
    corners: Float64[np.ndarray, "corners 4"], frame_to_ras: Affine
) -> Float64[np.ndarray, "lesions 3 2"]:
    inside = (corners @ np.linalg.inv(frame_to_ras).T)[:, :3].reshape(-1, 8, 3)
    return np.stack([inside.min(1), inside.max(1)], axis=2)
