"""Where a plane of visual tokens lies in its scan.

A plane is one depth step of the grid of visual tokens: a pair of neighbouring frames, or a plane of
another encoder's grid. In: its number and, where attention has a peak on it, a box in cells. Out:
the slices it shows, and the box in pixels and millimetres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import numpy as np

from ctscribe.base.rows import StudyRow
from ctscribe.base.types import BoxMm
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.cells import CELLS_PER_SIDE
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.scan.boxes import BoxPx, bounds_in, box_in_pixels, reach_of_planes
from ctscribe.scan.frames import PreparedVolume
from ctscribe.scan.types import Affine


@final
@dataclass(frozen=True)
class ShownSlices:
    """Geometry of the frames that are shown of a scan."""

    slice_indices: Sequence[int]
    """z index of each frame."""
    position_mm: Sequence[float]
    """Superior coordinate of each frame, RAS+."""
    frame_to_ras: Affine
    """(column px, row px, z index, 1) → RAS+ mm."""
    size_px: tuple[int, int]
    """(height, width)."""
    depth: int
    """Number of z indices of the volume."""

    @classmethod
    def of_scan(cls, scan: PreparedVolume) -> "ShownSlices":
        """Of a scan in memory."""
        _, height, width, _ = scan.frames.shape
        depth = scan.resampling.shape_xyz[2]
        places = scan.slice_indices, scan.position_mm, scan.frame_to_ras
        return cls(*places, (height, width), depth)

    @classmethod
    def of_study(cls, prepared: Prepared, study: StudyRow) -> "ShownSlices":
        """Of a prepared study."""
        _, height, width, _ = prepared.frames(study).shape
        places = study.slice_indices, study.position_mm, np.array(study.frame_to_ras)
        return cls(*places, (height, width), study.shape_xyz[2])


@final
@dataclass(frozen=True)
class PlaneInScan:
    """The slices that a plane shows, and a box in them; None where there is no box."""

    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    box_px: BoxPx | None = None
    box_mm: BoxMm | None = None


LocatePlane = Callable[[int, BoxPx | None], PlaneInScan]
"""(number of the plane, box in cells) → where they lie."""


def plane_locator(
    visual: Visual, shown: ShownSlices, cell_px: int, *, of_encoder: bool
) -> LocatePlane:
    """The function that locates the planes of a volume in its scan.

    Args:
        visual: Gives the geometry of an encoder's grid.
        shown: The frames.
        cell_px: Side of a cell; used for pairs of frames only.
        of_encoder: Whether planes are those of another encoder's grid.
    """
    if of_encoder:
        return partial(_encoder_plane, visual, shown)
    return partial(_frame_pair, shown, cell_px)


def _frame_pair(shown: ShownSlices, cell_px: int, number: int, cells: BoxPx | None) -> PlaneInScan:
    both, box = slice(2 * number, 2 * number + 2), None
    if cells is not None:
        left, top, right, bottom = (edge * cell_px for edge in cells)
        box = left, top, right, bottom
    return PlaneInScan(tuple(shown.slice_indices[both]), tuple(shown.position_mm[both]), box)


def _encoder_plane(
    visual: Visual, shown: ShownSlices, number: int, cells: BoxPx | None
) -> PlaneInScan:
    """The frames that lie in the plane; where there are none, the slice nearest to its middle."""
    low_mm, high_mm = reach_of_planes(visual.position_mm)[number]
    inside = [
        (index, mm)
        for index, mm in zip(shown.slice_indices, shown.position_mm, strict=True)
        if low_mm <= mm < high_mm
    ]
    slices = inside or _nearest(shown, visual.position_mm[number])
    indices, positions_mm = tuple(index for index, _ in slices), tuple(mm for _, mm in slices)
    if cells is None or visual.grid_to_ras is None:
        return PlaneInScan(indices, positions_mm)
    box_mm = cells_in_mm(np.array(visual.grid_to_ras), number, cells)
    to_frame = np.linalg.inv(shown.frame_to_ras)
    box = bounds_in(to_frame, zip(*box_mm, strict=True))
    box += (0.5, -0.5)  # from outer edges to the centres of the outermost pixels
    return PlaneInScan(indices, positions_mm, box_in_pixels(box, shown.size_px), box_mm)


def cells_in_mm(grid_to_ras: Affine, plane: int, cells: BoxPx) -> BoxMm:
    """Outer edges, in RAS+ mm, of a box of cells in one plane of an encoder's grid.

    Args:
        grid_to_ras: (plane, row, column, 1) of a visual token's centre → RAS+ mm.
        plane: Number of the plane.
        cells: (left, top, right, bottom) in cells, the last two exclusive; a token has
            `CELLS_PER_SIDE` cells along each side.
    """
    left, top, right, bottom = (edge / CELLS_PER_SIDE - 0.5 for edge in cells)
    ends = (plane - 0.5, plane + 0.5), (top, bottom), (left, right)
    low, high = bounds_in(grid_to_ras, ends).T.tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _nearest(shown: ShownSlices, position_mm: float) -> list[tuple[int, float]]:
    """The slice nearest to a superior coordinate; none where it lies outside the scan."""
    height, width = shown.size_px
    middle = np.array([(width - 1) / 2, (height - 1) / 2, 0.0, 1.0])
    start, step = float(shown.frame_to_ras[2] @ middle), float(shown.frame_to_ras[2, 2])
    index = round((position_mm - start) / step)
    return [(index, start + index * step)] if 0 <= index < shown.depth else []
