"""Boxes around lesions: in millimetres, in a study's frames, and in pixels of one frame."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import ndimage

from ctscribe.base.rows import StudyRow
from ctscribe.base.types import BoxMm
from ctscribe.scan.types import Affine

FrameBox = Float64[np.ndarray, "3 2"]
"""Lower and upper bound along (column px, row px, z index); pixel centres are whole numbers."""
FrameBoxes = Float64[np.ndarray, "lesions 3 2"]
"""One `FrameBox` per lesion."""
FrameReach = Float64[np.ndarray, "frames 2"]
"""Lower and upper z index that each frame shows; see `StudyRow.reach_z`."""
BoxPx = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of a frame, the last two exclusive."""


def boxes_in_frames(study: StudyRow, boxes_mm: Sequence[BoxMm]) -> FrameBoxes:
    """Maps boxes from RAS+ mm to a study's frames."""
    to_frame = np.linalg.inv(np.array(study.frame_to_ras))
    boxes = [bounds_in(to_frame, zip(*box, strict=True)) for box in boxes_mm]
    return np.array(boxes).reshape(-1, 3, 2)


def boxes_of_mask(mask: Bool[np.ndarray, "x y z"], affine: Affine) -> list[BoxMm]:
    """A box for each connected component, through the centres of its outermost voxels, RAS+ mm."""
    if not mask.any():
        return []
    (outer,) = ndimage.find_objects(mask.view(np.uint8))  # most of a scan lies outside
    labels, _ = ndimage.label(mask[outer], np.ones((3, 3, 3)))
    boxes: list[BoxMm] = []
    for piece in ndimage.find_objects(labels):
        ends = [
            (whole.start + axis.start, whole.start + axis.stop - 1)
            for whole, axis in zip(outer, piece, strict=True)
        ]
        low, high = bounds_in(affine, ends).T.tolist()
        boxes.append(((low[0], low[1], low[2]), (high[0], high[1], high[2])))
    return boxes


def bounds_in(
    to_other: Float64[np.ndarray, "4 4"], ends: Iterable[Iterable[float | int]]
) -> Float64[np.ndarray, "3 2"]:
    """Bounds in other axes of a box with these ``ends`` along its own axes."""
    corners = np.array([[*corner, 1.0] for corner in product(*ends)])
    inside = (corners @ to_other.T)[:, :3]
    return np.stack([inside.min(0), inside.max(0)], axis=1)


def reach_of_frames(study: StudyRow) -> FrameReach:
    """The z range that each frame of a study shows, with or without slabs."""
    return np.array(study.reach_z) if study.reach_z else reach_of_slices(study.slice_indices)


def reach_of_slices(slice_indices: Sequence[int]) -> FrameReach:
    """The z range of slices, which are as thick as their distance in the volume."""
    return np.asarray(slice_indices, float)[:, None] + [-0.5, 0.5]


def reach_of_planes(position_mm: Sequence[float]) -> Float64[np.ndarray, "planes 2"]:
    """Lower and upper superior coordinate that each plane of a grid covers, mm.

    A plane reaches half-way to its neighbours; ``position_mm`` falls from plane to plane.
    """
    places = np.array(position_mm, dtype=np.float64)
    if len(places) == 1:
        return np.array([[-np.inf, np.inf]])
    between = (places[:-1] + places[1:]) / 2
    first, last = 2 * places[0] - between[0], 2 * places[-1] - between[-1]
    edges = np.array([first, *between, last])
    return np.stack([edges[1:], edges[:-1]], axis=1)


def touches(box: FrameBox, reach: FrameReach) -> Bool[np.ndarray, "frames"]:
    """Which frames show a box: those whose z range overlaps with the box's."""
    return np.asarray((reach[:, 1] >= box[2, 0]) & (reach[:, 0] <= box[2, 1]))


def box_in_pixels(box: FrameBox, frame_size_px: tuple[int, int]) -> BoxPx | None:
    """The pixels of a box within a frame of (height, width); None where it lies outside."""
    height, width = frame_size_px
    low = np.floor(box[:2, 0] + 0.5).clip(0)
    high = np.floor(box[:2, 1] + 1.5).clip(max=(width, height))
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def box_around_peak(cells: Float[np.ndarray, "rows columns"], share: float, cell_px: int) -> BoxPx:
    """Box around the cells that are connected to a map's peak and hold at least a share of it.

    Args:
        cells: A map with one value per cell.
        share: Least value of a cell, as a share of the peak.
        cell_px: Pixels along a cell's side.
    """
    labels, _ = ndimage.label(cells >= share * cells.max(), np.ones((3, 3)))
    peak = labels[np.unravel_index(cells.argmax(), cells.shape)]
    rows, columns = ndimage.find_objects(labels)[peak - 1]
    edges = columns.start, rows.start, columns.stop, rows.stop
    left, top, right, bottom = (int(edge) * cell_px for edge in edges)
    return left, top, right, bottom


def overlap(first: BoxPx, second: BoxPx) -> float:
    """Intersection over union."""
    shared = (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
    common = _area(shared)
    return common / (_area(first) + _area(second) - common)


def _area(box: BoxPx) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])
