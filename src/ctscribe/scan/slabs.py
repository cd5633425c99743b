"""Slabs: maximum projections of the slices around each slice that is shown.

A vessel that is cut across looks like a nodule in one slice, but like a line in a slab. In: a grid
and the z indices of the slices shown. Out: the source slices of each slab, and its z range.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from ctscribe.base.types import SpacingMm
from ctscribe.scan.resample import Resampling


def slab_spans(grid: Resampling, indices: Sequence[int], slab_mm: float) -> list[range]:
    """Finds the source's z indices in the slab around each of a grid's slices.

    A slab contains the source slices whose centres lie within half its thickness, but no farther
    than half-way to the next slice shown, and always those from which its slice is interpolated.

    Args:
        grid: Of a source in RAS orientation.
        indices: z indices of the grid, in descending order.
        slab_mm: Thickness of a slab.
    """
    depth = grid.source.shape_xyz[2]
    centres = [(index + 0.5) * depth / grid.shape_xyz[2] - 0.5 for index in indices]
    half = slab_mm / 2 / grid.source.spacing_mm[2]
    above = [min(half, (up - z) / 2) for up, z in pairwise(centres)]
    taps = grid.taps_xyz[2]
    spans = []
    for index, centre, up, down in zip(
        indices, centres, [half, *above], [*above, half], strict=True
    ):
        own = taps.indices[index][taps.weights[index] > 0]
        first = min(int(own.min()), max(0, math.ceil(centre - down)))
        last = max(int(own.max()), min(depth - 1, math.floor(centre + up)))
        spans.append(range(first, last + 1))
    return spans


def reach_of_slabs(
    grid: Resampling, indices: Sequence[int], spans: Sequence[range]
) -> tuple[tuple[float, float], ...]:
    """Lower and upper z index of the grid that each slice and its slab show, at voxel edges.

    A slice reaches half an index to either side; a slab reaches from the lower edge of its lowest
    source slice to the upper edge of its highest.
    """
    ratio = grid.shape_xyz[2] / grid.source.shape_xyz[2]
    return tuple(
        (min(index, span.start * ratio) - 0.5, max(index + 1, span.stop * ratio) - 0.5)
        for index, span in zip(indices, spans, strict=True)
    )


def slab_thickness_mm(
    reach_z: Sequence[tuple[float, float]], spacing_mm: SpacingMm
) -> tuple[float, ...]:
    """Thickness of each frame's slab, mm; empty without slabs."""
    return tuple((high - low) * spacing_mm[2] for low, high in reach_z)
