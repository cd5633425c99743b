"""Where voxels lie: a sampling grid, and the pose of the body inside it."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.base.types import Affine, BoxMm, SpacingMm

Field = npt.NDArray[np.float32]
"""Values over points or voxels; coordinates broadcast against each other."""
Number = float | int
"""A measure as tables give it, 12 or 12.5."""
Point = tuple[Number, Number, Number]
"""(x, y, z) in mm, RAS+."""
Window = tuple[slice, slice, slice]
"""Part of an array in (z, y, x) order."""


@final
@dataclass(frozen=True)
class Grid:
    """A reconstruction's voxels and the body's pose in them.

    Arrays over the grid have axes (z, y, x): z ascends, y runs to posterior, x to the left, so
    that a C-ordered array is NIfTI's Fortran-ordered (x, y, z) in L, P, S axes.

    Args:
        shape_zyx: Number of slices, rows, columns.
        spacing_mm: Voxel size along (x, y, z).
        origin_mm: RAS+ position of the first voxel's centre.
        roll_rad: Rotation of the body about the long axis.
        shift_mm: World position of the body's origin (the carina).
        edge_mm: In-plane width over which a border blurs; the kernel sets it.
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

    def to_world(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Body mm [n, 3] → world RAS+ mm [n, 3]."""
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        x, y, z = np.asarray(points, dtype=np.float64).T
        turned = np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)
        return np.asarray(turned + np.asarray(self.shift_mm))

    def to_index(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Body mm [n, 3] → fractional (z, y, x) index [n, 3]."""
        scale = np.array([-1.0, -1.0, 1.0]) / np.asarray(self.spacing_mm)
        return np.asarray(((self.to_world(points) - np.asarray(self.origin_mm)) * scale)[:, ::-1])

    def window(self, low: Point, high: Point) -> Window | None:
        """The voxels that a body-frame box touches, with one voxel around; None outside."""
        cos, sin = math.cos(self.roll_rad), math.sin(self.roll_rad)
        (x, y, z), (hx, hy, hz) = _middle(low, high), _half(low, high)
        centre = (z, sin * x + cos * y, cos * x - sin * y)
        reach = (hz, abs(sin) * hx + abs(cos) * hy, abs(cos) * hx + abs(sin) * hy)
        signs, parts = (1, -1, -1), []
        for axis in range(3):
            offset = self.shift_mm[2 - axis] - self.origin_mm[2 - axis]
            place = signs[axis] * (centre[axis] + offset) / self.spacing_mm[2 - axis]
            half = reach[axis] / self.spacing_mm[2 - axis]
            first = max(math.floor(place - half) - 1, 0)
            last = min(math.ceil(place + half) + 2, self.shape_zyx[axis])
            if first >= last:
                return None
            parts.append(slice(first, last))
        return parts[0], parts[1], parts[2]

    def world_box(self, low: Point, high: Point) -> BoxMm:
        """The part of a body-frame box inside the volume, as axis-aligned RAS+ world box in mm."""
        corners = self.to_world(_corners(low, high))
        ends = np.array([np.zeros(3), np.asarray(self.shape_zyx[::-1]) - 1.0])
        ends = ends * np.array([-1.0, -1.0, 1.0]) * np.asarray(self.spacing_mm) + self.origin_mm
        lower = np.clip(corners.min(axis=0), ends.min(axis=0), ends.max(axis=0))
        upper = np.clip(corners.max(axis=0), ends.min(axis=0), ends.max(axis=0))
        return _rounded(lower), _rounded(upper)

    def slices(self, low_mm: float, high_mm: float) -> tuple[int, int]:
        """First and last slice index whose slab a range of body z touches, inside the volume."""
        z = (np.array([low_mm, high_mm]) - self.levels[0]) / self.spacing_mm[2]
        first, last = np.clip(np.rint(z), 0, self.shape_zyx[0] - 1).astype(int)
        return int(first), int(last)


def _corners(low: Point, high: Point) -> npt.NDArray[np.float64]:
    return np.array(
        [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )


def _middle(low: Point, high: Point) -> Point:
    return (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2


def _half(low: Point, high: Point) -> Point:
    return (high[0] - low[0]) / 2, (high[1] - low[1]) / 2, (high[2] - low[2]) / 2


def _rounded(point: npt.NDArray[np.float64]) -> Point:
    x, y, z = (round(float(value), 2) for value in point)
    return x, y, z
