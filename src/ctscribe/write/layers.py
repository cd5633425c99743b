"""Where a layer of visual tokens lies in its scan: two neighbouring frames, or an encoder's plane.

In: a layer's number and, where attention has a peak on it, a box in cells. Out: slices, pixels and
millimetres.
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
    """The frames of a scan: z index and superior coordinate (RAS+) of each, and where pixels lie.

    ``frame_to_ras`` is (column px, row px, z index, 1) → RAS+ mm, ``size_px`` (height, width),
    ``depth`` the number of z indices.
    """

    slice_indices: Sequence[int]
    position_mm: Sequence[float]
    frame_to_ras: Affine
    size_px: tuple[int, int]
    depth: int

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
class Layer:
    """Slices that a layer shows, and a box in them; None where that is not known."""

    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    box_px: BoxPx | None = None
    box_mm: BoxMm | None = None


FindLayer = Callable[[int, BoxPx | None], Layer]
"""Of a layer's number and a box in cells."""


def layers_of(visual: Visual, shown: ShownSlices, cell_px: int, *, of_encoder: bool) -> FindLayer:
    """How the layers of a volume are found in its scan.

    ``cell_px`` is the side of a cell where layers are pairs of frames, and not planes of another
    encoder's grid. Such a plane is in those of the frames that lie in it, and where there are none
    in the slice nearest to its middle.
    """
    if of_encoder:
        return partial(_plane, visual, shown)
    return partial(_pair, shown, cell_px)


def _pair(shown: ShownSlices, cell_px: int, number: int, cells: BoxPx | None) -> Layer:
    both, box = slice(2 * number, 2 * number + 2), None
    if cells is not None:
        left, top, right, bottom = (edge * cell_px for edge in cells)
        box = left, top, right, bottom
    return Layer(tuple(shown.slice_indices[both]), tuple(shown.position_mm[both]), box)


def _plane(visual: Visual, shown: ShownSlices, number: int, cells: BoxPx | None) -> Layer:
    low_mm, high_mm = reach_of_planes(visual.position_mm)[number]
    inside = [
        (index, mm)
        for index, mm in zip(shown.slice_indices, shown.position_mm, strict=True)
        if low_mm <= mm < high_mm
    ]
    slices = inside or _nearest(shown, visual.position_mm[number])
    indices, places = tuple(index for index, _ in slices), tuple(mm for _, mm in slices)
    if cells is None or visual.grid_to_ras is None:
        return Layer(indices, places)
    box_mm = cells_in_mm(np.array(visual.grid_to_ras), number, cells)
    to_frame = np.linalg.inv(shown.frame_to_ras)
    box = bounds_in(to_frame, zip(*box_mm, strict=True))
    box += (0.5, -0.5)  # outer edges here, centres of the outermost pixels there
    return Layer(indices, places, box_in_pixels(box, shown.size_px), box_mm)


def cells_in_mm(grid_to_ras: Affine, plane: int, cells: BoxPx) -> BoxMm:
    """Outer edges of cells of one plane of an encoder's grid, RAS+ mm.

    Args:
        grid_to_ras: (plane, row, column, 1) of a visual token's middle → RAS+ mm.
        cells: (left, top, right, bottom), the last two exclusive; `CELLS_PER_SIDE` to a token.
    """
    left, top, right, bottom = (edge / CELLS_PER_SIDE - 0.5 for edge in cells)
    ends = (plane - 0.5, plane + 0.5), (top, bottom), (left, right)
    low, high = bounds_in(grid_to_ras, ends).T.tolist()
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _nearest(shown: ShownSlices, position_mm: float) -> list[tuple[int, float]]:
    """The slice of the scan nearest to a position; none where that lies beside the scan."""
    height, width = shown.size_px
    middle = np.array([(width - 1) / 2, (height - 1) / 2, 0.0, 1.0])
    start, step = float(shown.frame_to_ras[2] @ middle), float(shown.frame_to_ras[2, 2])
    index = round((position_mm - start) / step)
    return [(index, start + index * step)] if 0 <= index < shown.depth else []
