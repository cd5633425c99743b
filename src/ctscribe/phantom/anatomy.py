"""Normal anatomy without the vessels of the lungs: chest wall, mediastinum, heart, abdomen.

In: a `Body`. Out: strokes in painting order, or voxels painted on a `Canvas`. Coordinates are
reference mm, see `Body.at`.
"""

import numpy as np

from ctscribe.phantom.body import CAVITY, LUNG_HU, SIDE_SIGN, Body
from ctscribe.phantom.canvas import Canvas, Stroke, blend, chunks, coordinates, paint, ramp
from ctscribe.phantom.grid import Field, Number, Point
from ctscribe.phantom.shapes import Capsule, Column, Ellipsoid, Knots, Region, Shape, tube

FAT_HU = -100.0
MUSCLE_HU = 50.0
WALL_HU = 30.0
GAS_HU = -990.0
RIB_PERIOD_MM = 27.0
VERTEBRA_MM = 24.0
SPINE: Knots = (
    (-235.0, 0.0, -54.0, 23.0, 18.0),
    (-150.0, 0.0, -60.0, 21.0, 17.0),
    (-60.0, 0.0, -69.0, 18.0, 16.0),
    (20.0, 0.0, -70.0, 16.0, 15.0),
    (90.0, 0.0, -56.0, 15.0, 13.0),
    (150.0, 0.0, -38.0, 14.0, 11.0),
)
AORTA: tuple[tuple[Point, float], ...] = (
    ((-2, 14, -52), 15.0),
    ((10, 24, -28), 16.0),
    ((14, 22, 4), 15.5),
    ((9, 12, 26), 15.0),
    ((-6, -6, 37), 14.5),
    ((-20, -28, 34), 14.0),
    ((-29, -44, 16), 13.5),
    ((-30, -49, -20), 13.0),
    ((-27, -48, -90), 12.5),
    ((-17, -40, -150), 12.0),
    ((-10, -32, -235), 11.0),
)
OESOPHAGUS: Knots = (
    (-150.0, -16.0, -18.0, 9.0, 7.0),
    (-120.0, -9.0, -30.0, 9.0, 6.5),
    (-60.0, -3.0, -43.0, 9.0, 6.0),
    (0.0, -6.0, -38.0, 9.0, 6.0),
    (60.0, -4.0, -38.0, 8.0, 6.0),
    (150.0, -3.0, -28.0, 8.0, 6.0),
)


def paint_wall(canvas: Canvas, body: Body) -> None:
    """Paints everything outside the pleura, and fills the pleural space with aerated lung."""
    paint(canvas, [*_table(body), *_trunk(body), *_muscles(body)])
    _paint_cage(canvas, body)
    paint(canvas, [*_sternum(body), *_shoulders(body)])


def organ_strokes(body: Body) -> list[Stroke]:
    """The organs between and below the lungs, in painting order."""
    return [
        Stroke(body.mediastinum, ((0.0, FAT_HU),), "organ"),
        *_abdomen(body),
        *_spine(body),
        *_heart(body),
        *_vessels(body),
        *_airways(body),
    ]


def blood_hu(body: Body, arterial: bool = True) -> float:
    """Density of blood, which contrast agent raises more on the arterial side."""
    if not body.contrast:
        return 42.0
    return 230.0 if arterial else 190.0


def aorta_points(body: Body) -> list[tuple[Point, float]]:
    """Centre line from valve to hiatus with the radius at each point, in body mm."""
    widen = 1 + 0.004 * (body.age_years - 50)
    return [(body.at(*point), radius * widen) for point, radius in AORTA]


def oesophagus(body: Body) -> Column:
    """The oesophagus down to the hiatus."""
    return Column(body.knots(OESOPHAGUS))


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


def _paint_cage(canvas: Canvas, body: Body) -> None:
    """Paints muscle wall, ribs and lungs from one depth map of the cavity, which is costly."""
    column = body.cavity
    low, high = Column(column.knots, grow_mm=20.0).bounds()
    block = canvas.grid.block((low[0], low[1], low[2] - 200), high)
    for part in chunks(block) if block else ():
        x, y, z = coordinates(canvas.grid, part)
        hu, edge = canvas.hu[part], canvas.grid.edge_mm
        depth = column.depth(x, y, np.maximum(z, low[2]))
        blend(hu, ramp(depth + np.float32(17), edge), np.float32(MUSCLE_HU))
        if z.min() < -120:
            blend(hu, ramp(depth - np.float32(1), edge), np.float32(FAT_HU))
        air = np.minimum(depth - 3, z - body.base_level(y))
        canvas.lung[part] = ramp(air, edge)
        blend(hu, air, np.float32(LUNG_HU) - np.float32(0.28) * y)
        _paint_ribs(hu, depth, (x, y, z), body, edge)


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


def _abdomen(body: Body) -> list[Stroke]:
    right, left, middle = body.domes
    bright = 55.0 if body.contrast else 0.0

    def organ(x: Number, y: Number, z: Number, radii: Point, turn: float = 0.0) -> Ellipsoid:
        return Ellipsoid(body.below(x, y, z), body.at(*radii), turn_rad=turn)

    tissue = [
        (middle, ((0.0, 45.0), (4.0, FAT_HU))),
        (left, ((0.0, 45.0), (4.0, FAT_HU))),
        (right, ((0.0, 45.0), (3.0, 58.0 + bright))),
        (organ(-8, 30, -182, (66, 42, 46)), ((0.0, 56.0 + bright),)),
        (organ(-96, -44, -182, (34, 40, 50), 0.3), ((0.0, 48.0 + 1.3 * bright),)),
        (organ(-58, 28, -180, (52, 42, 44)), ((0.0, 45.0), (5.0, 18.0))),
        (organ(-54, 48, -166, (36, 20, 28)), ((0.0, GAS_HU),)),
        (organ(-52, -30, -232, (30, 28, 42)), ((0.0, 34.0 + 2 * bright),)),
    ]
    return [Stroke(shape, layers, "organ") for shape, layers in tissue]


def _spine(body: Body) -> list[Stroke]:
    """The spine, painted after the fat and organs in front of it."""
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


def _heart(body: Body) -> list[Stroke]:
    coats = [(body.sac_mm, 25.0), (4.5 + body.pericardial_mm, 8.0), (3.8, FAT_HU)]
    if not body.pericardial_mm:
        del coats[1]
    strokes = [
        Stroke(shape, ((0.0, hu),), "organ")
        for grow_mm, hu in coats
        for shape in body.heart(grow_mm).values()
    ]
    muscle = 95.0 if body.contrast else 52.0
    walls = {
        "right atrium": 2.5,
        "right ventricle": 4.0,
        "left ventricle": 11.0,
        "left atrium": 2.5,
    }
    for name, shape in body.heart().items():
        arterial = name.startswith("left")
        layers = ((0.0, muscle), (walls[name], blood_hu(body, arterial)))
        strokes.append(Stroke(shape, layers, "organ"))
    return strokes


def _vessels(body: Body) -> list[Stroke]:
    aorta = aorta_points(body)
    arterial, venous = blood_hu(body), blood_hu(body, arterial=False)

    def vessel(hu: float, *knots: tuple[Number, Number, Number, Number]) -> list[Stroke]:
        shapes = tube([body.at(*k[:3]) for k in knots], [k[3] for k in knots])
        return [Stroke(shape, ((0.0, hu),), "organ") for shape in shapes]

    strokes = [
        *vessel(venous, (-12, 40, -52, 14), (-18, 26, -26, 14), (-20, 6, -8, 13)),
        *vessel(venous, (-14, 6, -10, 11), (10, -6, -13, 11), (44, -14, -16, 9)),
        *vessel(venous, (-20, 4, -6, 12), (-46, -20, -4, 9)),
        *vessel(venous, (24, 8, -48, 10), (26, 8, 20, 9), (26, 14, 48, 8), (40, 20, 92, 6)),
        *vessel(venous, (26, 14, 48, 7), (-8, 34, 58, 6), (-36, 18, 94, 6)),
        *vessel(venous, (10, -52, -200, 4), (9, -54, -10, 4), (14, -46, 10, 4), (26, 0, 14, 4)),
        *vessel(arterial, (4, 4, 40, 7), (14, 4, 62, 6.5), (24, -4, 100, 5)),
        *vessel(arterial, (-8, -8, 46, 4.5), (-16, -4, 80, 4), (-20, 0, 150, 4)),
        *vessel(arterial, (-20, -24, 44, 5.5), (-32, -22, 84, 5), (-62, -6, 108, 4.5)),
        *vessel(venous, (-34, -14, -46, 7), (-52, -22, -44, 6)),
        *vessel(venous, (26, -20, -46, 7), (48, -22, -44, 6)),
    ]
    wall = tube([point for point, _ in aorta], [radius for _, radius in aorta])
    lumen = tube([point for point, _ in aorta], [radius - 1.6 for _, radius in aorta])
    strokes += [Stroke(shape, ((0.0, 48.0),), "organ") for shape in wall]
    strokes += [Stroke(shape, ((0.0, arterial),)) for shape in lumen]
    for side in (1.0, -1.0):
        thyroid = Ellipsoid(body.at(side * 16, -4, 122), (10.0, 11.0, 20.0))
        strokes.append(Stroke(thyroid, ((0.0, 105.0),)))
    return strokes


def _airways(body: Body) -> list[Stroke]:
    trachea: Knots = (
        (0.0, 0.0, -20.0, 9.5, 8.0),
        (130.0, 0.0, -8.0, 8.5, 9.0),
        (200.0, 0.0, 0.0, 8.0, 9.0),
    )
    gullet = oesophagus(body)
    strokes = [
        Stroke(gullet, ((0.0, 38.0),), "organ"),
        Stroke(Column(gullet.knots, grow_mm=-4.5), ((0.0, -350.0),)),
    ]
    shapes: list[Shape] = [Column(body.knots(trachea), grow_mm=1.8), *_main_bronchi(body)]
    strokes += [Stroke(shape, ((0.0, WALL_HU), (1.8, GAS_HU)), "organ") for shape in shapes]
    lumen: list[Shape] = [Column(body.knots(trachea)), *_main_bronchi(body, grow_mm=0.0)]
    return strokes + [Stroke(shape, ((0.0, GAS_HU),)) for shape in lumen]


def _main_bronchi(body: Body, grow_mm: float = 1.6) -> list[Capsule]:
    """Both main bronchi from carina to hilum, outer surface."""
    ends = {"right": (36, -27, -26), "left": (-44, -28, -28)}
    shapes = []
    for side, end in ends.items():
        start = body.at(SIDE_SIGN[side] * 4, -21, 3)
        radii = (7.0, 5.8) if side == "right" else (6.6, 5.2)
        shapes.append(Capsule(start, body.at(*end), radii[0] + grow_mm, radii[1] + grow_mm))
    return shapes
