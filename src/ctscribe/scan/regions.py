"""Boxes and masks with affines of their own, drawn on one voxel grid and compared there.

In: boxes or masks, each with its affine. Out: boolean volumes, and the overlap of two of them, as a
whole and piece by piece.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from ctscribe.base.types import BoxMm
from ctscribe.scan.boxes import bounds_in
from ctscribe.scan.types import Affine

_ROUNDING = 1e-3
"""Positions within this share of a voxel from a border count as on it."""
_EVERY_NEIGHBOUR = np.ones((3, 3, 3))


class Grid(NamedTuple):
    """The voxel grid on which regions are drawn."""

    shape_xyz: tuple[int, int, int]
    affine: Affine


@final
@dataclass(frozen=True)
class Region:
    """A box in the axes of an affine, or the voxels of a mask in that box."""

    ends: Float64[np.ndarray, "3 2"]
    """First and last index along each axis, both inclusive."""
    affine: Affine
    """Index along the axes → RAS+ mm."""
    mask: Bool[np.ndarray, "x y z"] | None = None

    @classmethod
    def of_box(cls, box_mm: BoxMm) -> "Region":
        """A box along the axes of RAS+."""
        return cls(np.array(box_mm, dtype=np.float64).T, np.eye(4))

    @classmethod
    def of_mask(cls, mask: Bool[np.ndarray, "x y z"], affine: Affine) -> "Region | None":
        """All voxels of a mask; None where it has none."""
        if not mask.any():
            return None
        (outer,) = ndimage.find_objects(mask.view(np.uint8))
        ends = [(axis.start, axis.stop - 1) for axis in outer]
        return cls(np.array(ends, dtype=np.float64), affine, mask)

    def holds(self, index: Sequence[np.ndarray]) -> Bool[np.ndarray, "..."]:
        """Which positions, indices along the region's axes, lie in its box or its mask's voxels."""
        slack = _ROUNDING if self.mask is None else 0.5
        inside = np.ones(np.broadcast_shapes(*(axis.shape for axis in index)), bool)
        for axis, (first, last) in zip(index, self.ends, strict=True):
            inside &= (axis >= first - slack) & (axis <= last + slack)
        if self.mask is not None:
            nearest = [
                np.rint(axis[inside].clip(first, last)).astype(int)
                for axis, (first, last) in zip(index, self.ends, strict=True)
            ]
            inside[inside] = self.mask[tuple(nearest)]
        return inside


def draw(regions: Iterable[Region], grid: Grid) -> Bool[np.ndarray, "x y z"]:
    """The voxels of a grid whose centres lie in one of the regions.

    A box too thin to contain a centre is drawn as the voxel nearest its middle, if on the grid.
    """
    drawn = np.zeros(grid.shape_xyz, bool)
    for region in regions:
        if region.mask is not None and _is_on(region.mask.shape, region.affine, grid):
            drawn |= region.mask
        elif not _draw_one(region, grid, drawn) and region.mask is None:
            _draw_middle(region, grid, drawn)
    return drawn


def _is_on(shape: tuple[int, ...], affine: Affine, grid: Grid) -> bool:
    """Whether voxels coincide with a grid's, within a tenth of a voxel at the far corner."""
    drift = np.abs(np.linalg.inv(affine) @ grid.affine - np.eye(4)) @ [*grid.shape_xyz, 1]
    return shape == grid.shape_xyz and bool((drift < 0.1).all())


def _draw_one(region: Region, grid: Grid, drawn: Bool[np.ndarray, "x y z"]) -> bool:
    """Draws a region; returns whether it contains any voxel's centre."""
    to_region = np.linalg.inv(region.affine) @ grid.affine
    cells = 0.0 if region.mask is None else 0.5
    ends = bounds_in(np.linalg.inv(to_region), np.add(region.ends, [-cells, cells]))
    first = np.floor(ends[:, 0]).astype(int).clip(0, grid.shape_xyz)
    last = np.ceil(ends[:, 1]).astype(int).clip(-1, np.array(grid.shape_xyz) - 1)
    x, y = np.ogrid[first[0] : last[0] + 1, first[1] : last[1] + 1]
    any_drawn = False
    for z in range(first[2], last[2] + 1):  # slice by slice, since coordinates take much memory
        index = [row[0] * x + row[1] * y + (row[2] * z + row[3]) for row in to_region[:3]]
        inside = region.holds(index)
        drawn[first[0] : last[0] + 1, first[1] : last[1] + 1, z] |= inside
        any_drawn |= bool(inside.any())
    return any_drawn


def _draw_middle(region: Region, grid: Grid, drawn: Bool[np.ndarray, "x y z"]) -> None:
    middle = [*region.ends.mean(axis=1), 1.0]
    voxel = np.rint(np.linalg.inv(grid.affine) @ region.affine @ middle)[:3].astype(int)
    if ((voxel >= 0) & (voxel < grid.shape_xyz)).all():
        drawn[tuple(voxel)] = True


def grid_around(regions: Iterable[Region]) -> Grid:
    """A grid of 1 mm along the RAS+ axes around one or more regions."""
    ends = np.stack([bounds_in(region.affine, region.ends) for region in regions])
    low, high = ends[:, :, 0].min(0), ends[:, :, 1].max(0)
    affine = np.eye(4)
    affine[:3, 3] = low
    x, y, z = (np.floor(high - low).astype(int) + 1).tolist()
    return Grid((x, y, z), affine)


def dice(first: Bool[np.ndarray, "x y z"], second: Bool[np.ndarray, "x y z"]) -> float:
    """Dice coefficient: 2·|A ∩ B| / (|A| + |B|); 1 where both are empty."""
    voxels = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * float(np.count_nonzero(first & second)) / voxels if voxels else 1.0


def match_pieces(
    first: Bool[np.ndarray, "x y z"], second: Bool[np.ndarray, "x y z"], least_dice: float
) -> tuple[int, int, int]:
    """Pairs the connected components of two masks one to one, highest Dice first.

    Voxels that touch at a corner are connected too.

    Args:
        least_dice: Pairs with a lower Dice coefficient are not made.

    Returns:
        Number of pairs, and of components of either mask.
    """
    (one, num_one), (two, num_two) = (
        ndimage.label(each, _EVERY_NEIGHBOUR) for each in (first, second)
    )
    common = first & second
    both, voxels = np.unique(np.stack([one[common], two[common]]), axis=1, return_counts=True)
    sizes = np.bincount(one[first])[both[0]] + np.bincount(two[second])[both[1]]
    shares = 2 * voxels / sizes
    taken: tuple[set[int], set[int]] = set(), set()
    for at in np.argsort(-shares, kind="stable"):
        a, b = both[:, at].tolist()
        if shares[at] >= least_dice and a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
    return len(taken[0]), int(num_one), int(num_two)
