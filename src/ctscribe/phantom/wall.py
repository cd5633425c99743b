"""Body wall: skin, fat, muscle, ribs, spine, sternum, shoulders, and the table below."""

import numpy as np

from ctscribe.phantom.body import CAVITY, LUNG_HU, Body
from ctscribe.phantom.canvas import Canvas, Stroke, chunks, coordinates, paint, ramp
from ctscribe.phantom.grid import Field
from ctscribe.phantom.shapes import Capsule, Column, Ellipsoid, Knots, Region

FAT_HU = -100.0
MUSCLE_HU = 50.0
RIB_PERIOD_MM = 27.0


def paint_wall(canvas: Canvas, body: Body) -> None:
    """Paints everything outside the pleura, and fills the pleural space with aerated lung."""
    paint(canvas, [*_table(body), *_trunk(body), *_muscles(body)])
    _paint_cage(canvas, body)
    paint(canvas, [*_sternum(body), *_shoulders(body)])


def _table(body: Body) -> list[Stroke]:
    back = -(92 * body.scale[1] + 32 + body.fat_mm)
    ends = ((-400.0, 0.0, back - 122, 215.0, 130.0), (400.0, 0.0, back - 122, 215.0, 130.0))

    def slab(x: Field, y: Field, z: Field) -> Field:
        top = np.float32(back) + x * x * np.float32(0.00035)
        inside = np.minimum(top - y, y - (top - 28))
        return np.asarray(np.minimum(inside, 215 - np.abs(x)) + 0 * z, np.float32)

    box = ((-215.0, back - 30, ends[0][0]), (215.0, back + 18, ends[1][0]))
    return [Stroke(Region(box, slab), ((0.0, -300.0), (3.0, -890.0)))]


def _trunk(body: Body) -> list[Stroke]:
    fat = body.fat_mm
    around = body.knots(CAVITY, (22 + fat, 26 + 0.8 * fat))
    sx, sy, sz = body.scale
    neck = (
        (78 * sz, 0.0, -14 * sy, 150 * sx + fat, 98 * sy + 0.5 * fat),
        (104 * sz, 0.0, -16 * sy, 136 * sx + fat, 84 * sy + 0.3 * fat),
        (132 * sz, 0.0, -18 * sy, 88 * sx + 0.5 * fat, 72 * sy),
        (165 * sz, 0.0, -16 * sy, 66 * sx, 66 * sy),
        (240 * sz, 0.0, -10 * sy, 60 * sx, 66 * sy),
    )
    below = (-420.0, 0.0, around[0][2], around[0][3], around[0][4])
    knots = (below, *(k for k in around if k[0] < 70 * sz), *neck)
    layers = ((0.0, 10.0), (2.5, FAT_HU - 5))
    strokes = [Stroke(Column(knots, square=0.35), layers)]
    for side in (1, -1) if body.female else ():
        breast = Ellipsoid(body.at(side * 78, 92, -38), (62.0, 34.0 + 0.8 * fat, 58.0))
        gland = Ellipsoid(body.at(side * 80, 96 + 0.4 * fat, -40), (32.0, 16.0, 30.0), wave_mm=5)
        strokes += [Stroke(breast, layers), Stroke(gland, ((0.0, 15.0),), soft_mm=14)]
    return strokes


def _muscles(body: Body) -> list[Stroke]:
    strokes = []
    for side in (1.0, -1.0):
        pieces = (
            ((68, 74, 36), (50.0, 12.0, 52.0), -0.38),
            ((76, 58, 62), (48.0, 14.0, 30.0), -0.5),
            ((118, -62, 10), (26.0, 46.0, 100.0), 0.35),
            ((70, -100, 60), (62.0, 14.0, 60.0), 0.22),
            ((36, -108, -60), (27.0, 17.0, 190.0), 0.1),
            ((30, -88, 110), (32.0, 24.0, 60.0), 0.2),
            ((28, 12, 140), (14.0, 20.0, 50.0), 0.4),
        )
        for center, radii, turn in pieces:
            x, y, z = center
            shape = Ellipsoid(body.at(side * x, y, z), body.at(*radii), turn_rad=side * turn)
            strokes.append(Stroke(shape, ((0.0, MUSCLE_HU),)))
    return strokes


def _paint_cage(canvas: Canvas, body: Body) -> None:
    """Muscle wall, ribs and lungs from one depth map of the cavity, where all time would go."""
    column = body.cavity
    low, high = Column(column.knots, grow_mm=20.0).bounds()
    window = canvas.grid.window((low[0], low[1], low[2] - 200), high)
    for part in chunks(window) if window else ():
        x, y, z = coordinates(canvas.grid, part)
        hu, edge = canvas.hu[part], canvas.grid.edge_mm
        depth = column.depth(x, y, np.maximum(z, low[2]))
        _blend(hu, ramp(depth + np.float32(17), edge), np.float32(MUSCLE_HU))
        if z.min() < -120:
            _blend(hu, ramp(depth - np.float32(1), edge), np.float32(FAT_HU))
        air = np.minimum(depth - 3, z - body.base_level(y))
        canvas.lung[part] = ramp(air, edge)
        _blend(hu, air, np.float32(LUNG_HU) - np.float32(0.28) * y)
        _paint_ribs(hu, depth, (x, y, z), body, edge)


def _blend(hu: Field, weight: Field, value: Field | np.float32) -> None:
    change = value - hu
    change *= weight
    hu += change


def _paint_ribs(
    hu: Field, depth: Field, place: tuple[Field, Field, Field], body: Body, edge: float
) -> None:
    x_mm, y_mm, z_mm = place
    rows = np.flatnonzero((depth > -14) & (depth < 2) & (np.abs(x_mm) > 20))
    level, pixel = np.divmod(rows, x_mm.size)
    y = y_mm.reshape(-1)[pixel] / np.float32(body.scale[1])
    z = z_mm.reshape(-1)[level] / np.float32(body.scale[2])
    around = depth.reshape(-1)[rows] + 6
    slope = z + 0.5 * y
    phase = slope - RIB_PERIOD_MM * np.rint(slope / RIB_PERIOD_MM)
    depth_rib = (1 - np.sqrt((around / 5.2) ** 2 + (phase / 8.5) ** 2)) * 5.2
    gap = (slope < -215) | (slope > 72)
    cover = np.where(gap, 0, np.clip(depth_rib / edge + 0.5, 0, 1))
    marrow = np.clip((depth_rib - 1.8) / edge + 0.5, 0, 1)
    bone = 620 - 4 * (body.age_years - 50) - 400 * marrow
    cartilage = np.clip((y - 52) / 10, 0, 1)
    value = bone + cartilage * (95 + 2.2 * max(body.age_years - 45, 0) - bone)
    voxels = (level, pixel // x_mm.shape[2], pixel % x_mm.shape[2])
    hu[voxels] += (cover * (value - hu[voxels])).astype(np.float32)


def _sternum(body: Body) -> list[Stroke]:
    front = {z: y + ry for z, _, y, _, ry in CAVITY}
    rows = (
        (-105.0, 7.0, 3.0),
        (-40.0, 15.0, 5.0),
        (10.0, 16.0, 5.5),
        (45.0, 27.0, 6.5),
        (62.0, 24.0, 6.0),
    )
    levels = sorted(front)
    knots: Knots = tuple(
        (z, 0.0, float(np.interp(z, levels, [front[v] for v in levels])) + 8, rx, ry)
        for z, rx, ry in rows
    )
    shape = Column(body.knots(knots), square=0.5)
    return [Stroke(shape, ((0.0, 420.0), (2.2, 130.0)), "organ")]


def _shoulders(body: Body) -> list[Stroke]:
    bone = ((0.0, 520.0), (2.5, 210.0))
    strokes = []
    for side in (1.0, -1.0):
        arm = (body.at(side * 132, -14, 88), body.at(side * 172, 6, 260))
        muscle = Capsule(*arm, 40 + 0.5 * body.fat_mm, 44 + 0.6 * body.fat_mm)
        inner = 4 + 0.45 * body.fat_mm
        strokes.append(Stroke(muscle, ((0.0, FAT_HU), (inner, MUSCLE_HU))))
    for side in (1.0, -1.0):
        humerus = Capsule(body.at(side * 148, -12, 122), body.at(side * 176, 6, 280), 12.0, 11.0)
        head = Ellipsoid(body.at(side * 140, -14, 112), (23.0, 22.0, 22.0))
        blade = Ellipsoid(
            body.at(side * 104, -72, 48), (44.0, 4.5, 62.0), turn_rad=side * 0.75, tilt_rad=0.25
        )
        spine = Capsule(body.at(side * 78, -98, 66), body.at(side * 132, -48, 96), 6.0, 9.0)
        clavicle = Capsule(body.at(side * 26, 46, 66), body.at(side * 92, 22, 98), 7.0, 6.5)
        outer = Capsule(body.at(side * 92, 22, 98), body.at(side * 128, -20, 128), 6.5, 7.0)
        strokes += [Stroke(shape, bone) for shape in (humerus, head, blade, spine, clavicle, outer)]
    return strokes
