"""One patient's body: the surfaces of the cavities and lobes in which everything is placed.

Reference coordinates are those of an average adult, in mm; `Body.at` scales them to body mm.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np

from ctscribe.phantom.grid import Field, Number, Point
from ctscribe.phantom.shapes import Column, Ellipsoid, Knots, Shape

Side = Literal["right", "left"]
Lobe = Literal["upper lobe", "middle lobe", "lower lobe"]
SIDE_SIGN: dict[str, float] = {"right": 1.0, "left": -1.0}
SIDES: tuple[Side, Side] = ("right", "left")
LUNG_HU = -850.0

CAVITY: Knots = (
    (-235.0, 0.0, -3.0, 128.0, 88.0),
    (-140.0, 0.0, -3.0, 134.0, 92.0),
    (-90.0, 0.0, -4.0, 134.0, 92.0),
    (-40.0, 0.0, -5.0, 130.0, 88.0),
    (10.0, 0.0, -8.0, 121.0, 80.0),
    (45.0, 0.0, -14.0, 108.0, 68.0),
    (75.0, 0.0, -22.0, 88.0, 52.0),
    (95.0, 0.0, -27.0, 66.0, 37.0),
    (108.0, 0.0, -28.0, 46.0, 20.0),
    (112.0, 0.0, -28.0, 30.0, 8.0),
)
MEDIASTINUM: Knots = (
    (-235.0, 0.0, -12.0, 36.0, 60.0),
    (-120.0, -2.0, -14.0, 34.0, 60.0),
    (-70.0, -2.0, -10.0, 36.0, 64.0),
    (-30.0, 0.0, -8.0, 38.0, 66.0),
    (0.0, 0.0, -8.0, 37.0, 65.0),
    (30.0, -2.0, -8.0, 36.0, 60.0),
    (60.0, 0.0, -10.0, 34.0, 52.0),
    (90.0, 0.0, -16.0, 34.0, 48.0),
    (150.0, 0.0, -18.0, 40.0, 48.0),
)
HEART: tuple[tuple[str, Point, Point, float], ...] = (
    ("right atrium", (23.0, 12.0, -72.0), (23.0, 31.0, 38.0), 0.0),
    ("right ventricle", (-10.0, 40.0, -84.0), (44.0, 26.0, 34.0), 0.25),
    ("left ventricle", (-43.0, 11.0, -86.0), (42.0, 34.0, 39.0), 0.65),
    ("left atrium", (-4.0, -21.0, -54.0), (36.0, 21.0, 25.0), 0.0),
)


@final
@dataclass(frozen=True)
class Body:
    """The body of a patient; in body mm the carina is the origin.

    Args:
        scale: Size relative to the reference along (x, y, z).
        fat_mm: Thickness of subcutaneous fat.
        female: Adds breasts.
        age_years: Sets bone density and cartilage calcification.
        contrast: Whether blood is enhanced by a contrast agent.
        heart_scale: 1 is normal; from about 1.2 the cardiothoracic ratio exceeds one half.
        pericardial_mm: Thickness of fluid around the heart; 0 is none.
        inspiration_mm: How far the diaphragm is below its reference position.
        seed: Seed of the vessels' branching.
    """

    scale: Point = (1.0, 1.0, 1.0)
    fat_mm: float = 18.0
    female: bool = False
    age_years: int = 55
    contrast: bool = False
    heart_scale: float = 0.96
    pericardial_mm: float = 0.0
    inspiration_mm: float = 0.0
    seed: int = 0

    def at(self, x: Number, y: Number, z: Number) -> Point:
        """Reference position → body mm."""
        return x * self.scale[0], y * self.scale[1], z * self.scale[2]

    def below(self, x: Number, y: Number, z: Number) -> Point:
        """Reference position in the abdomen → body mm; it moves down with the diaphragm."""
        px, py, pz = self.at(x, y, z)
        return px, py, pz - self.inspiration_mm

    def knots(self, rows: Knots, grow_xy: tuple[float, float] = (0.0, 0.0)) -> Knots:
        """Reference knots → body mm, with both half axes grown by a fixed amount."""
        (sx, sy, sz), (gx, gy) = self.scale, grow_xy
        return tuple(
            (z * sz, x * sx, y * sy, rx * sx + gx, ry * sy + gy) for z, x, y, rx, ry in rows
        )

    @cached_property
    def cavity(self) -> Column:
        """Everything inside the ribs."""
        return Column(self.knots(CAVITY), square=0.3)

    @cached_property
    def mediastinum(self) -> Column:
        """The fatty column between the lungs, without the heart."""
        return Column(self.knots(MEDIASTINUM))

    @cached_property
    def domes(self) -> tuple[Ellipsoid, ...]:
        """The domes of the diaphragm: right, left, and under the heart."""
        shapes = (
            ((62.0, 2.0, -206.0), (80.0, 93.0, 108.0)),
            ((-62.0, 2.0, -213.0), (78.0, 90.0, 102.0)),
            ((-4.0, 10.0, -190.0), (78.0, 75.0, 66.0)),
        )
        return tuple(Ellipsoid(self.below(*center), self.at(*radii)) for center, radii in shapes)

    def heart(self, grow_mm: float = 0.0) -> dict[str, Ellipsoid]:
        """The four chambers with their walls, grown by ``grow_mm``."""
        s, pivot = self.heart_scale, (8.0, 0.0, -88.0)
        chambers = {}
        for name, center, radii, turn in HEART:
            moved = (p + s * (c - p) for c, p in zip(center, pivot, strict=True))
            x, y, z = self.at(*moved)
            a, b, c = self.at(*radii)
            grown = (a * s + grow_mm, b * s + grow_mm, c * min(s, 1.15) + grow_mm)
            chambers[name] = Ellipsoid((x, y, z), grown, turn_rad=turn)
        return chambers

    @property
    def sac_mm(self) -> float:
        """Distance from the chambers to the outside of the pericardium."""
        return 5.0 + self.pericardial_mm

    def base_level(self, y: Field) -> Field:
        """Body z below which the pleural recess ends, by body y."""
        return np.asarray((-160.0 * self.scale[2] - self.inspiration_mm) + 0.26 * y, np.float32)

    def lung_depth(self, x: Field, y: Field, z: Field) -> Field:
        """Distance in mm to the nearest surface of the lungs, positive inside; no vessels."""
        depth = np.minimum(self.cavity.depth(x, y, z) - 3, z - self.base_level(y))
        solids: list[Shape] = [self.mediastinum, *self.domes]
        solids += self.heart(self.sac_mm).values()
        for solid in solids:
            depth = np.minimum(depth, -solid.depth(x, y, z))
        return np.asarray(depth, np.float32)

    def oblique_level(self, side: Side, y: Field) -> Field:
        """Body z of the oblique fissure; the upper and middle lobes lie above it."""
        lean = 0.72 if side == "right" else 0.78
        return np.asarray(self.scale[2] * -28.0 - lean * y, np.float32)

    def minor_level(self, y: Field) -> Field:
        """Body z of the right horizontal fissure."""
        return np.asarray(self.scale[2] * (-26.0 + 0.05 * y), np.float32)

    def lobe(self, point: Point) -> Lobe:
        """The lobe around a position in the lungs."""
        y, z = np.float32(point[1]), np.float32(point[2])
        side: Side = "right" if point[0] > 0 else "left"
        if z < self.oblique_level(side, np.asarray(y)):
            return "lower lobe"
        if side == "right" and z < self.minor_level(np.asarray(y)):
            return "middle lobe"
        return "upper lobe"
