"""Boxes in millimetres → where they lie in a study's frames."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64

from ctscribe.base.rows import StudyRow
from ctscribe.base.types import BoxMm

FrameBoxes = Float64[np.ndarray, "lesions 3 2"]
"""Lower and upper bound along (column px, row px, z index) of a study's frames."""


def boxes_in_frames(study: StudyRow, boxes_mm: Sequence[BoxMm]) -> FrameBoxes:
    """Maps boxes from RAS+ mm to a study's frames; pixel centres are whole numbers."""
    corners = np.array(
        [[*corner, 1.0] for box in boxes_mm for corner in product(*zip(*box, strict=True))]
    )
    to_frame = np.linalg.inv(np.array(study.frame_to_ras))
    inside = (corners.reshape(-1, 4) @ to_frame.T)[:, :3].reshape(-1, 8, 3)
    return np.stack([inside.min(1), inside.max(1)], axis=2)
