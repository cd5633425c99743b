"""Paints many tubes at once: a lung has hundreds of vessels, too many to paint one by one."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.body import LUNG_HU
from ctscribe.phantom.canvas import Canvas, ramp
from ctscribe.phantom.grid import Field, Points, VoxelGrid
from ctscribe.phantom.shapes import Box, box_of

THIN_VOXELS = 0.85
"""Below this radius in pixels, a dense tube is painted by its partial volume."""
DENSE_HU = -500
LOST_VOXELS = 0.2
"""Below this radius in pixels, a tube in the lung would be lost in noise and is left out."""
BATCH_VOXELS = 1 << 21
Integers = npt.NDArray[np.int64]


@final
@dataclass(frozen=True)
class Tubes:
    """Tapering tubes.

    Args:
        start: [n, 3] body mm.
        end: [n, 3] body mm.
        radius_mm: [n] at the start.
        end_radius_mm: [n].
    """

    start: Points
    end: Points
    radius_mm: npt.NDArray[np.float64]
    end_radius_mm: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.radius_mm)

    def __getitem__(self, rows: npt.NDArray[np.generic]) -> "Tubes":
        return Tubes(
            self.start[rows], self.end[rows], self.radius_mm[rows], self.end_radius_mm[rows]
        )

    def grown(self, mm: float | npt.NDArray[np.float64]) -> "Tubes":
        """The same tubes, thicker."""
        return Tubes(self.start, self.end, self.radius_mm + mm, self.end_radius_mm + mm)

    def bounds(self) -> Box:
        """A body-frame box around all of them, in mm."""
        radius = np.maximum(self.radius_mm, self.end_radius_mm)[:, None]
        low = np.minimum(self.start, self.end) - radius
        high = np.maximum(self.start, self.end) + radius
        return box_of(low.min(axis=0), high.max(axis=0))


def path(points: npt.ArrayLike, radius_mm: float) -> Tubes:
    """A tube of one radius through points [n, 3]."""
    knots = np.asarray(points, dtype=np.float64)
    radius = np.full(len(knots) - 1, radius_mm)
    return Tubes(knots[:-1], knots[1:], radius, radius)


def paint_tubes(
    canvas: Canvas, tubes: Tubes, hu: float, space: Literal["any", "lung"] = "lung"
) -> None:
    """Paints tubes of one density; those thinner than a voxel by their partial volume."""
    if space == "lung" and hu > DENSE_HU:
        width = tubes.radius_mm / canvas.grid.spacing_mm[0]
        _splat(canvas, tubes[np.flatnonzero((width > LOST_VOXELS) & (width < THIN_VOXELS))], hu)
        tubes = tubes[np.flatnonzero(width >= THIN_VOXELS)]
    first, count = _boxes(canvas.grid, tubes)
    total = np.cumsum(count.prod(axis=1))
    begin = 0
    while begin < len(tubes):
        done = total[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(total, done + BATCH_VOXELS)))
        part = np.arange(begin, stop)
        _paint_batch(canvas, tubes[part], first[part], count[part], hu, space)
        begin = stop


def _boxes(grid: VoxelGrid, tubes: Tubes) -> tuple[Integers, Integers]:
    """First voxel and number of voxels of each tube's box, both [n, 3] in (z, y, x)."""
    radius = np.maximum(tubes.radius_mm, tubes.end_radius_mm) + 0.5 * grid.edge_mm
    reach = radius[:, None] / np.asarray(grid.spacing_mm[::-1]) + [0.5, 0, 0]
    ends = np.stack([grid.to_index(tubes.start), grid.to_index(tubes.end)])
    first = np.maximum(np.ceil(ends.min(axis=0) - reach), 0).astype(np.int64)
    last = np.minimum(np.floor(ends.max(axis=0) + reach) + 1, grid.shape_zyx).astype(np.int64)
    return first, np.maximum(last - first, 0)


def _paint_batch(
    canvas: Canvas, tubes: Tubes, first: Integers, count: Integers, hu: float, space: str
) -> None:
    """Paints tubes given the first voxel and the number of voxels [n, 3] of their boxes."""
    grid = canvas.grid
    size = count.prod(axis=1)
    which = np.repeat(np.arange(len(tubes)), size)
    place = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size)
    rest, ix = np.divmod(place, count[which, 2])
    iz, iy = np.divmod(rest, count[which, 1])
    iz, iy, ix = iz + first[which, 0], iy + first[which, 1], ix + first[which, 2]
    x, y = grid.plane[0][0][iy, ix], grid.plane[1][0][iy, ix]
    depth = _depth(tubes, which, x, y, grid.levels[iz])
    near = np.flatnonzero(depth > -0.5 * (grid.edge_mm + grid.spacing_mm[2]))
    which, x, y, iz = which[near], x[near], y[near], iz[near]
    _, rows, columns = grid.shape_zyx
    flat = (iz * rows + iy[near]) * columns + ix[near]
    strongest = canvas.scratch.reshape(-1)
    np.maximum.at(strongest, flat, _cover(grid, tubes, which, (x, y, grid.levels[iz])))
    weight = strongest[flat]
    strongest[flat] = 0
    if space == "lung":
        weight = weight * canvas.lung.reshape(-1)[flat]
    values = canvas.hu.reshape(-1)
    values[flat] += weight * (np.float32(hu) - values[flat])


def _cover(
    grid: VoxelGrid, tubes: Tubes, which: Integers, place: tuple[Field, Field, Field]
) -> Field:
    """Share of each voxel inside its tube, averaged over the slice's thickness."""
    x, y, z = place
    slab = grid.spacing_mm[2]
    fine = int(np.clip(np.ceil(slab / 2.0), 1, 3))
    cover = np.zeros(len(which), np.float32)
    for number in range(fine):
        offset = np.float32(((number + 0.5) / fine - 0.5) * slab)
        cover += ramp(_depth(tubes, which, x, y, z + offset), grid.edge_mm)
    return cover / np.float32(fine)


def _depth(tubes: Tubes, which: Integers, x: Field, y: Field, z: Field) -> Field:
    """Depth of each position below the surface of its own tube, mm."""
    start = tubes.start.astype(np.float32)
    along = (tubes.end - tubes.start).astype(np.float32)
    per_length = along / ((along**2).sum(axis=1, keepdims=True) + np.float32(1e-6))
    dx, dy, dz = x - start[which, 0], y - start[which, 1], z - start[which, 2]
    ux, uy, uz = per_length[which].T
    t = np.clip(dx * ux + dy * uy + dz * uz, 0, 1)
    ax, ay, az = along[which].T
    distance = np.sqrt((dx - t * ax) ** 2 + (dy - t * ay) ** 2 + (dz - t * az) ** 2)
    radius = tubes.radius_mm.astype(np.float32)
    taper = (tubes.end_radius_mm - tubes.radius_mm).astype(np.float32)
    return np.asarray(radius[which] + t * taper[which] - distance, np.float32)


def _splat(canvas: Canvas, tubes: Tubes, hu: float) -> None:
    """Adds tubes thinner than a voxel, by spreading pieces of them over their eight neighbours."""
    grid = canvas.grid
    length = np.linalg.norm(tubes.end - tubes.start, axis=1)
    count = np.maximum(np.ceil(length / (0.7 * min(grid.spacing_mm))).astype(int), 1)
    which = np.repeat(np.arange(len(count)), count)
    steps = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + 0.5
    points = tubes.start[which] + (steps / count[which])[:, None] * (tubes.end - tubes.start)[which]
    section = np.pi * tubes.radius_mm * tubes.end_radius_mm
    volume = (section * length / count)[which] / np.prod(grid.spacing_mm)
    index = grid.to_index(points)
    base = np.floor(index).astype(np.int64)
    inside = np.all((base >= 0) & (base < np.asarray(grid.shape_zyx) - 1), axis=1)
    base, rest, volume = base[inside], (index - np.floor(index))[inside], volume[inside]
    _, rows, columns = grid.shape_zyx
    values, aerated = canvas.hu.reshape(-1), canvas.lung.reshape(-1)
    first = (base[:, 0] * rows + base[:, 1]) * columns + base[:, 2]
    for corner in np.ndindex(2, 2, 2):
        share = np.abs(1 - np.array(corner) - rest).prod(axis=1) * volume
        where = first + (corner[0] * rows + corner[1]) * columns + corner[2]
        lung = aerated[where]
        np.add.at(values, where, (share * (hu - LUNG_HU)).astype(np.float32) * lung)
        values[where] = np.where(lung > 0.5, np.minimum(values[where], hu), values[where])
