"""The spine: vertebral bodies and discs, canal, and the processes behind it."""

import numpy as np

from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Stroke
from ctscribe.phantom.grid import Field
from ctscribe.phantom.shapes import Column, Knots, Region

VERTEBRA_MM = 24.0
SPINE: Knots = (
    (-235.0, 0.0, -54.0, 23.0, 18.0),
    (-150.0, 0.0, -60.0, 21.0, 17.0),
    (-60.0, 0.0, -69.0, 18.0, 16.0),
    (20.0, 0.0, -70.0, 16.0, 15.0),
    (90.0, 0.0, -56.0, 15.0, 13.0),
    (150.0, 0.0, -38.0, 14.0, 11.0),
)


def spine_strokes(body: Body) -> list[Stroke]:
    """The spine, in painting order; it comes after the fat and the organs in front of it."""
    sx, sy, sz = body.scale
    knots = body.knots(SPINE)
    posterior = tuple((z, x, y - ry - 9 * sy, 11.0, 9.0) for z, x, y, _, ry in knots)
    marrow = 230.0 - 1.6 * (body.age_years - 40)
    column, ring = Column(knots, square=0.2), Column(posterior, grow_mm=5.0)
    centre = np.array(knots, dtype=np.float32).T

    def every(z: Field, offset: float) -> Field:
        period = np.float32(VERTEBRA_MM * sz)
        return np.asarray(np.abs((z + offset) - period * np.rint((z + offset) / period)))

    def bodies(x: Field, y: Field, z: Field) -> Field:
        return np.asarray(np.minimum(column.depth(x, y, z), 9.5 * sz - every(z, 0.0)))

    def processes(x: Field, y: Field, z: Field) -> Field:
        back = np.interp(z, centre[0], centre[2] - centre[4]).astype(np.float32)
        spinous = np.minimum(3.5 - np.abs(x), 14 - np.abs(y - (back - 30)))
        across = np.minimum(34 * sx - np.abs(x), 4.5 - np.abs(y - (back - 13 - 0.25 * np.abs(x))))
        spinous = np.minimum(spinous, 9 - every(z, 6.0))
        return np.asarray(np.maximum(spinous, np.minimum(across, 6 - every(z, -4.0))))

    low, high = Column(knots, grow_mm=4.0).bounds()
    wide = ((-36 * sx, low[1] - 75, low[2]), (36 * sx, high[1], high[2]))
    return [
        Stroke(Column(knots, square=0.2, grow_mm=1.0), ((0.0, 75.0),), "organ"),
        Stroke(Region((low, high), bodies), ((0.0, 480.0), (2.2, marrow)), "organ"),
        Stroke(ring, ((0.0, 430.0),), "organ"),
        Stroke(Region(wide, processes), ((0.0, 480.0), (1.8, 260.0)), "organ"),
        Stroke(Column(posterior), ((0.0, 0.0), (3.5, 35.0)), "organ"),
    ]
