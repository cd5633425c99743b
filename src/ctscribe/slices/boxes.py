"""Boxes in millimetres → where they lie in a study's frames."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64

from ctscribe.rows import StudyRow
from ctscribe.types import BoxMm

FrameBoxes = Float64[np.ndarray, "lesions 3 2"]
"""Lower and upper bound along (column px, row px, z index) of a study's frames."""


def boxes_in_frames(study: StudyRow, boxes_mm: Sequence[BoxMm]) -> FrameBoxes:
    """Maps boxes from RAS+ mm to a study's frames; pixel centres are whole numbers."""
    to_frame = np.linalg.inv(np.array(study.frame_to_ras))
    mapped = []
    for box in boxes_mm:
        corners = np.array([[*corner, 1.0] for corner in product(*zip(*box, strict=True))])
        inside = (corners @ to_frame.T)[:, :3]
        mapped.append(np.stack([inside.min(0), inside.max(0)], axis=1))
    return np.array(mapped).reshape(-1, 3, 2)
