"""A reconstruction's voxels, and the pose of the body among them.

Three frames meet here: body mm (x right, y anterior, z superior, the carina at the origin), world
mm (RAS+), and voxel indices (z, y, x).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.base.types import BoxMm, SpacingMm
from ctscribe.scan.types import Affine

Field = npt.NDArray[np.float32]
"""Values over points or voxels; coordinates broadcast against each other."""
Number = float | int
"""A measure in a table, such as 12 or 12.5."""
Point = tuple[Number, Number, Number]
"""(x, y, z) in mm, RAS+."""
Points = npt.NDArray[np.float64]
"""[n, 3], (x, y, z) in mm."""
Block = tuple[slice, slice, slice]
"""Part of an array [z, y, x]."""
_INDEX_SIGN = np.array([-1.0, -1.0, 1.0])
"""Direction in which the voxel index grows along world (x, y, z)."""


@final
@dataclass(frozen=True)
class VoxelGrid:
    """A reconstruction's voxels and the body's pose in them.

    Arrays over the grid have axes (z, y, x): z ascends, y runs to posterior, x to the left, so
    that a C-ordered array is NIfTI's Fortran-ordered (x, y, z) in L, P, S axes.

    Args:
        shape_zyx: Number of slices, rows, columns.
        spacing_mm: Voxel size along (x, y, z).
        origin_mm: RAS+ position of the first voxel's centre.
        roll_rad: Rotation of the body about the long axis.
        shift_mm: World position of the body's origin.
        edge_mm: In-plane width of a blurred border; the kernel sets it.
    """

    shape_zyx: tuple[int, int, int]
    spacing_mm: SpacingMm
    origin_mm: Point
    roll_rad: float
    shift_mm: Point
    edge_mm: float

    @cached_property
    def affine(self) -> Affine:
        """Voxel index (x, y, z) → RAS+ mm."""
        sx, sy, sz = self.spacing_mm
        affine = np.diag([-sx, -sy, sz, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    @cached_property
    def plane(self) -> tuple[Field, Field]:
        """Body x and body y of every pixel, each [1, rows, columns]."""
        _, rows, columns = self.shape_zyx
        x = self.origin_mm[0] - self.shift_mm[0] - self.spacing_mm[0] * np.arange(columns)
        y = self.origin_mm[1] - self.shift_mm[1] - self.spacing_mm[1] * np.arange(rows)
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        along = cos * x[None, :] + sin * y[:, None]
        across = cos * y[:, None] - sin * x[None, :]
        return along[None].astype(np.float32), across[None].astype(np.float32)

    @cached_property
    def levels(self) -> Field:
        """Body z of every slice, [slices]."""
        z = self.origin_mm[2] - self.shift_mm[2] + self.spacing_mm[2] * np.arange(self.shape_zyx[0])
        return z.astype(np.float32)

    def to_world(self, points: npt.NDArray[np.floating]) -> Points:
        """Body mm [n, 3] → world RAS+ mm [n, 3]."""
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        x, y, z = np.asarray(points, dtype=np.float64).T
        turned = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)
        return np.asarray(turned + np.asarray(self.shift_mm))

    def to_index(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Body mm [n, 3] → fractional (z, y, x) index [n, 3]."""
        scale = _INDEX_SIGN / np.asarray(self.spacing_mm)
        return np.asarray(((self.to_world(points) - np.asarray(self.origin_mm)) * scale)[:, ::-1])

    def block(self, low: Point, high: Point) -> Block | None:
        """The voxels that a body-frame box touches, and a margin of one; None outside the grid."""
        cos, sin = math.cos(self.roll_rad), math.sin(self.roll_rad)
        x, y, z = (np.asarray(low) + np.asarray(high)) / 2
        hx, hy, hz = (np.asarray(high) - np.asarray(low)) / 2
        centre = np.array([cos * x - sin * y, sin * x + cos * y, z])
        reach = np.array([abs(cos) * hx + abs(sin) * hy, abs(sin) * hx + abs(cos) * hy, hz])
        offset = np.asarray(self.shift_mm) - np.asarray(self.origin_mm)
        place = _INDEX_SIGN * (centre + offset) / np.asarray(self.spacing_mm)
        half = reach / np.asarray(self.spacing_mm)
        first = np.maximum(np.floor(place - half) - 1, 0).astype(int)
        last = np.minimum(np.ceil(place + half) + 2, self.shape_zyx[::-1]).astype(int)
        if (first >= last).any():
            return None
        x_part, y_part, z_part = map(slice, first.tolist(), last.tolist())
        return z_part, y_part, x_part

    def world_box(self, low: Point, high: Point) -> BoxMm:
        """The part of a body-frame box inside the volume, as RAS+ world box rounded to 0.01 mm."""
        corners = self.to_world(np.array(list(product(*zip(low, high, strict=True)))))
        ends = np.array([np.zeros(3), np.asarray(self.shape_zyx[::-1]) - 1.0])
        ends = ends * _INDEX_SIGN * np.asarray(self.spacing_mm) + self.origin_mm
        inside = np.clip([corners.min(0), corners.max(0)], ends.min(0), ends.max(0))
        (ax, ay, az), (bx, by, bz) = inside.round(2).tolist()
        return (ax, ay, az), (bx, by, bz)

    def slices(self, low_mm: float, high_mm: float) -> tuple[int, int]:
        """First and last slice index whose slab a range of body z touches, inside the volume."""
        z = (np.array([low_mm, high_mm]) - self.levels[0]) / self.spacing_mm[2]
        first, last = np.clip(np.rint(z), 0, self.shape_zyx[0] - 1).astype(int)
        return int(first), int(last)
