"""Analytic solids in body mm, each with a bounding box and a signed distance to its surface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.grid import Field, Number, Point

Box = tuple[Point, Point]
Knots = tuple[tuple[Number, Number, Number, Number, Number], ...]
"""Rows of (z, x, y, radius x, radius y), descending or ascending in z."""


class Shape(ABC):
    """A solid, in body mm."""

    @abstractmethod
    def bounds(self) -> Box:
        """A body-frame box that holds the solid, in mm."""

    @abstractmethod
    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """Approximate distance in mm to the surface, positive inside.

        ``x`` and ``y`` have one shape, against which ``z`` broadcasts.
        """

    @property
    def thin_mm(self) -> float:
        """Smallest extent, by which thick slices are supersampled along z.

        It is infinite for solids that run along z or are large compared to a slice.
        """
        return float("inf")


@final
@dataclass(frozen=True)
class Ellipsoid(Shape):
    """An ellipsoid, turned about z and tilted about its own long axis, with a wavy surface.

    Args:
        center: In mm.
        radii: Half axes in mm.
        turn_rad: Rotation about the body's z axis.
        tilt_rad: Rotation about the turned x axis.
        wave_mm: Height of the surface's bumps.
        wave_length_mm: Wavelength of the bumps.
        phase: Phase of the bumps, so that no two lesions look alike.
    """

    center: Point
    radii: Point
    turn_rad: Number = 0.0
    tilt_rad: Number = 0.0
    wave_mm: Number = 0.0
    wave_length_mm: Number = 20.0
    phase: Number = 0.0

    def bounds(self) -> Box:
        """See `Shape`."""
        axes = self._axes() * np.asarray(self.radii)[:, None]
        reach = np.sqrt((axes**2).sum(axis=0)) * (1 + self.wave_mm / min(self.radii))
        return box_of(np.asarray(self.center) - reach, np.asarray(self.center) + reach)

    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """See `Shape`."""
        x, y, z = x - self.center[0], y - self.center[1], z - self.center[2]
        square = np.zeros((1,) * x.ndim, np.float32)
        for a, b, c in (self._axes() / np.asarray(self.radii)[:, None]).astype(np.float32):
            form = c * z if not a and not b else a * x + b * y
            if c and (a or b):
                form = form + c * z
            form *= form
            square = square + form
        depth: Field = np.sqrt(square, out=square)
        np.subtract(1, depth, out=depth)
        depth *= np.float32(min(self.radii))
        if self.wave_mm:
            k = np.float32(2 * np.pi / self.wave_length_mm)
            wave = np.sin(k * x + self.phase) + np.sin(k * y + 2.1 * self.phase)
            depth += np.float32(self.wave_mm / 3) * (wave + np.sin(k * z + 0.6 * (k * x - k * y)))
        return depth

    @property
    def thin_mm(self) -> float:
        """See `Shape`."""
        return 2.0 * min(self.radii)

    def _axes(self) -> npt.NDArray[np.float64]:
        cos, sin = np.cos(self.turn_rad), np.sin(self.turn_rad)
        up, over = np.cos(self.tilt_rad), np.sin(self.tilt_rad)
        return np.array([[cos, sin, 0], [-sin * up, cos * up, over], [sin * over, -cos * over, up]])


@final
@dataclass(frozen=True)
class Capsule(Shape):
    """A tapering tube between two points."""

    start: Point
    end: Point
    radius_mm: Number
    end_radius_mm: Number

    def bounds(self) -> Box:
        """See `Shape`."""
        r = max(self.radius_mm, self.end_radius_mm)
        return box_of(np.minimum(self.start, self.end) - r, np.maximum(self.start, self.end) + r)

    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """See `Shape`."""
        (ax, ay, az), (bx, by, bz) = self.start, self.end
        dx, dy, dz = bx - ax, by - ay, bz - az
        x, y, z = x - ax, y - ay, z - az
        length = dx * dx + dy * dy + dz * dz + 1e-6
        t = np.clip((x * (dx / length) + y * (dy / length)) + z * (dz / length), 0, 1)
        square = (x - t * dx) ** 2 + (y - t * dy) ** 2 + (z - t * dz) ** 2
        radius = self.radius_mm + t * (self.end_radius_mm - self.radius_mm)
        return np.asarray(radius - np.sqrt(square), dtype=np.float32)

    @property
    def thin_mm(self) -> float:
        """See `Shape`."""
        return float(self.radius_mm + self.end_radius_mm)


@final
@dataclass(frozen=True)
class Column(Shape):
    """A column with elliptic axial sections; centre and half axes are linear between knots.

    Args:
        knots: Rows of (z, x, y, radius x, radius y) in mm, ascending in z.
        square: 0 for ellipses; up to 1, sections become rounded rectangles.
        grow_mm: Length added to all half axes.
    """

    knots: Knots
    square: Number = 0.0
    grow_mm: Number = 0.0

    def bounds(self) -> Box:
        """See `Shape`."""
        z, x, y, rx, ry = np.array(self.knots, dtype=float).T
        rx, ry = rx + self.grow_mm, ry + self.grow_mm
        low = np.array([(x - rx).min(), (y - ry).min(), z.min()])
        return box_of(low, np.array([(x + rx).max(), (y + ry).max(), z.max()]))

    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """See `Shape`; the flat ends are sharp to one millimetre."""
        knots = np.array(self.knots, dtype=np.float32).T
        cx, cy, rx, ry = (
            np.interp(z, knots[0], row).astype(np.float32, copy=False) for row in knots[1:]
        )
        rx, ry = rx + np.float32(self.grow_mm), ry + np.float32(self.grow_mm)
        if cx.any():
            total = x * (1 / rx)
            total -= cx / rx
            total *= total
        else:
            total = (x * x) * (1 / (rx * rx))
        across = y * (1 / ry)
        across -= cy / ry
        across *= across
        if self.square:
            round_off = total * np.float32(-self.square)
            round_off += 1
            across *= np.maximum(round_off, 0.25, out=round_off)
        total += across
        depth: Field = np.sqrt(total, out=total)
        np.subtract(1, depth, out=depth)
        depth *= np.sqrt(rx * ry)
        if z.min() < knots[0, 0] or z.max() > knots[0, -1]:
            depth = np.minimum(depth, np.minimum(z - knots[0, 0], knots[0, -1] - z))
        return depth


@final
@dataclass(frozen=True)
class Region(Shape):
    """A solid that is given by its box and its depth function."""

    box: Box
    function: Callable[[Field, Field, Field], Field]

    def bounds(self) -> Box:
        """See `Shape`."""
        return self.box

    def depth(self, x: Field, y: Field, z: Field) -> Field:
        """See `Shape`."""
        return self.function(x, y, z)


def box_of(low: npt.NDArray[np.floating], high: npt.NDArray[np.floating]) -> Box:
    """The box between two corners [3]."""
    (ax, ay, az), (bx, by, bz) = low.tolist(), high.tolist()
    return (ax, ay, az), (bx, by, bz)


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    corners = np.array(boxes, dtype=float)
    return box_of(corners[:, 0].min(0), corners[:, 1].max(0))


def tube(points: Sequence[Point], radii: Sequence[Number]) -> list[Capsule]:
    """A chain of capsules through points with a radius at each."""
    return [
        Capsule(a, b, ra, rb)
        for a, b, ra, rb in zip(points, points[1:], radii, radii[1:], strict=False)
    ]
