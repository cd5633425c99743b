"""Mediastinum, spine, heart, great vessels, central airways, and what lies under the diaphragm."""

from ctscribe.phantom.body import SIGN, Body
from ctscribe.phantom.canvas import Stroke
from ctscribe.phantom.grid import Number, Point
from ctscribe.phantom.shapes import Capsule, Column, Ellipsoid, Knots, Shape, tube
from ctscribe.phantom.spine import spine_strokes

FAT_HU = -100.0
WALL_HU = 30.0
GAS_HU = -990.0

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


def blood_hu(body: Body, arterial: bool = True) -> float:
    """Of flowing blood, by phase and side of the circulation."""
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


def organ_strokes(body: Body) -> list[Stroke]:
    """Everything between and below the lungs, in painting order."""
    return [
        Stroke(body.mediastinum, ((0.0, FAT_HU),), "organ"),
        *_abdomen(body),
        *spine_strokes(body),
        *_heart(body),
        *_vessels(body),
        *_airways(body),
    ]


def _abdomen(body: Body) -> list[Stroke]:
    right, left, middle = body.domes
    bright = 55.0 if body.contrast else 0.0
    drop = body.inspiration_mm

    def organ(x: Number, y: Number, z: Number, radii: Point, turn: float = 0.0) -> Ellipsoid:
        px, py, pz = body.at(x, y, z)
        return Ellipsoid((px, py, pz - drop), body.at(*radii), turn_rad=turn)

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


def _heart(body: Body) -> list[Stroke]:
    strokes: list[Stroke] = []
    sac = body.heart(body.sac_mm).values()
    strokes += [Stroke(shape, ((0.0, 25.0),), "organ") for shape in sac]
    if body.pericardial_mm:
        fluid = body.heart(4.5 + body.pericardial_mm).values()
        strokes += [Stroke(shape, ((0.0, 8.0),), "organ") for shape in fluid]
    strokes += [Stroke(shape, ((0.0, FAT_HU),), "organ") for shape in body.heart(3.8).values()]
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
    shapes: list[Shape] = [Column(body.knots(trachea), grow_mm=1.8), *main_bronchi(body)]
    strokes += [Stroke(shape, ((0.0, WALL_HU), (1.8, GAS_HU)), "organ") for shape in shapes]
    lumen: list[Shape] = [Column(body.knots(trachea)), *main_bronchi(body, grow_mm=0.0)]
    return strokes + [Stroke(shape, ((0.0, GAS_HU),)) for shape in lumen]


def main_bronchi(body: Body, grow_mm: float = 1.6) -> list[Capsule]:
    """Both main bronchi from carina to hilum, outer surface."""
    ends = {"right": (36, -27, -26), "left": (-44, -28, -28)}
    shapes = []
    for side, end in ends.items():
        start = body.at(SIGN[side] * 4, -21, 3)
        radii = (7.0, 5.8) if side == "right" else (6.6, 5.2)
        shapes.append(Capsule(start, body.at(*end), radii[0] + grow_mm, radii[1] + grow_mm))
    return shapes
