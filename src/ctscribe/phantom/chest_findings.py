"""Draws findings of the heart, its vessels and the mediastinum, and devices; one per function.

In: a random generator and a `Scene`. Out: `Drawing`s. Coordinates are reference mm, see `Body.at`.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.anatomy import OESOPHAGUS, aorta_points
from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Canvas, Stroke
from ctscribe.phantom.drawing import (
    Drawing,
    Laterality,
    Painted,
    Scene,
    joined,
    millimetres,
    strokes,
    tubes,
)
from ctscribe.phantom.grid import Number, Point, Points
from ctscribe.phantom.shapes import Ellipsoid, union
from ctscribe.phantom.tubes import Tubes, path

Floats = npt.NDArray[np.float64]
METAL_HU = 2800.0
STATIONS: tuple[tuple[str, Laterality, Point], ...] = (
    ("right upper paratracheal", "right", (17, -6, 54)),
    ("right lower paratracheal", "right", (17, -14, 20)),
    ("prevascular", "midline", (-6, 40, 22)),
    ("aortopulmonary", "left", (-31, 0, 16)),
    ("subcarinal", "midline", (6, -30, -26)),
    ("right hilar", "right", (46, -12, -30)),
    ("left hilar", "left", (-50, -12, -26)),
    ("right axillary", "right", (128, 0, 66)),
    ("left axillary", "left", (-128, 0, 66)),
)
CORONARIES: dict[str, tuple[Point, ...]] = {
    "left anterior descending": ((-8, 30, -46), (-22, 48, -62), (-40, 56, -84), (-52, 48, -108)),
    "circumflex": ((-10, 16, -48), (-44, -4, -60), (-66, -10, -82), (-70, -4, -104)),
    "right coronary": ((12, 30, -50), (28, 46, -64), (34, 46, -90), (14, 30, -116)),
}


def cardiomegaly(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """An enlarged heart, which is already part of the body."""
    del rng
    box = union([shape.bounds() for shape in scene.body.heart().values()])
    size = float(round(box[1][0] - box[0][0]))
    return [Drawing("Cardiomegaly", "midline", None, size, Painted(box, _paint_nothing))]


def pericardial_effusion(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Fluid around the heart, which is already part of the body."""
    del rng
    body = scene.body
    box = union([shape.bounds() for shape in body.heart(body.sac_mm).values()])
    painted = Painted(box, _paint_nothing)
    return [Drawing("Pericardial effusion", "midline", None, body.pericardial_mm, painted)]


def _paint_nothing(canvas: Canvas) -> None:
    """For findings that the anatomy itself shows."""


def lymph_nodes(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """One to four ovoid nodes in mediastinal, hilar or axillary fat, largest first."""
    count = 1 + min(int(rng.poisson(1.2)), 3)
    weights = np.array([2, 5, 3, 3, 4, 3, 3, 1, 1], dtype=float)
    chosen = rng.choice(len(STATIONS), count, replace=False, p=weights / weights.sum())
    drawings = []
    for index in chosen:
        site, side, point = STATIONS[index]
        long = scene.enlarged(millimetres(rng, 18, 0.3, 10, 34), 50)
        short = float(round(long * rng.uniform(0.6, 0.8)))
        x, y, z = scene.body.at(*point)
        center = (x + rng.normal(0, 2), y + rng.normal(0, 2), z + rng.normal(0, 3))
        shape = Ellipsoid(
            center, (long / 2, short / 2, long * rng.uniform(0.5, 0.7)), turn_rad=rng.uniform(0, 3)
        )
        painted = strokes(Stroke(shape, ((0.0, rng.uniform(48, 75)),), "organ"))
        drawings.append(
            Drawing("Lymphadenopathy", side, None, long, painted, short_mm=short, site=site)
        )
    return sorted(drawings, key=lambda drawing: -drawing.size_mm)


def hiatal_hernia(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Stomach above the diaphragm, behind the heart, with gas or fluid in it."""
    size = millimetres(rng, 48, 0.25, 32, 80)
    r = size / 2
    x, y, z = scene.body.at(-8, -24, -126)
    center = (x + rng.normal(0, 3), y, z - scene.body.inspiration_mm + 0.35 * r)
    sac = Ellipsoid(center, (r, 0.75 * r, 0.95 * r), turn_rad=rng.uniform(-0.4, 0.4), wave_mm=1.5)
    parts = [Stroke(sac, ((0.0, 45.0), (4.5, rng.uniform(-60, 20))), "organ")]
    if rng.random() < 0.6:
        gas = (center[0], center[1] + 0.26 * r, center[2] + 0.1 * r)
        parts.append(Stroke(Ellipsoid(gas, (0.6 * r, 0.34 * r, 0.6 * r)), ((0.0, -980.0),)))
    return [Drawing("Hiatal hernia", "midline", None, size, strokes(*parts))]


def aortic_calcification(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Plaques along the wall of the arch and the descending aorta."""
    knots = aorta_points(scene.body)
    points = np.array([point for point, _ in knots])
    radii = np.array([radius for _, radius in knots])
    sites = {"aortic arch": (2.5, 6.0), "descending aorta": (6.0, 9.3)}
    names = list(sites) if rng.random() < 0.6 else [list(sites)[int(rng.integers(2))]]
    for site in names:
        plaques = []
        for _ in range(int(rng.integers(3, 8))):
            middle, half = rng.uniform(*sites[site]), rng.uniform(0.12, 0.4)
            along = np.linspace(middle - half, middle + half, 6)
            angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.3, 1.6), 6)
            wall = _on_wall(points, radii, along, angle)
            radius = scene.lesion_scale * float(rng.uniform(1.3, 2.6))
            plaques.append((path(wall, radius), rng.uniform(600, 1200)))
        length = max(np.ptp(t.start, axis=0)[:2].max() + 2 * t.radius_mm[0] for t, _ in plaques)
        painted = tubes(*plaques, space="any")
        size, finding = float(round(length)), "Arterial wall calcification"
        yield Drawing(finding, "midline", None, size, painted, site=site)


def coronary_calcification(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Calcified stretches of one to three coronary arteries."""
    names = list(CORONARIES)
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.35, 0.25]))
    chosen = ["left anterior descending", *rng.permutation(names[1:]).tolist()][:count]
    for name in chosen:
        course = _on_heart(scene.body, np.array([scene.body.at(*p) for p in CORONARIES[name]]))
        pieces = []
        for _ in range(int(rng.integers(1, 4))):
            first = rng.uniform(0, 2.0)
            along = np.linspace(first, min(first + rng.uniform(0.5, 1.4), 3), 6)
            knots = np.stack([np.interp(along, np.arange(4), axis) for axis in course.T], axis=1)
            knots = _on_heart(scene.body, knots)
            radius = scene.lesion_scale * float(rng.uniform(1.4, 2.4))
            pieces.append((path(knots, radius), rng.uniform(600, 1300)))
        length = max(np.ptp(t.start, axis=0)[:2].max() for t, _ in pieces) + 4
        painted = tubes(*pieces, space="any")
        size, finding = float(round(length)), "Coronary artery wall calcification"
        yield Drawing(finding, "midline", None, size, painted, site=name)


def _on_wall(points: Points, radii: Floats, along: Floats, angle: Floats) -> Points:
    """Positions on a tube's wall, by knot number and angle around the centre line."""
    number = np.arange(len(points))
    centre = np.stack([np.interp(along, number, axis) for axis in points.T], axis=1)
    ahead = np.stack([np.interp(along + 0.1, number, axis) for axis in points.T], axis=1)
    forward = ahead - centre
    forward /= np.linalg.norm(forward, axis=1, keepdims=True) + 1e-9
    side = np.cross(forward, [0.3, 1.0, 0.2])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(forward, side)
    radius = np.interp(along, number, radii)[:, None] - 0.8
    around = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * other
    return np.asarray(centre + radius * around)


def _on_heart(body: Body, points: Points) -> Points:
    """Positions moved along rays from the middle of the heart onto its surface."""
    chambers = list(body.heart().values())
    middle = np.mean([chamber.center for chamber in chambers], axis=0)
    steps = np.linspace(0.2, 2.2, 81)
    rays = (middle + steps[:, None, None] * (points - middle)).astype(np.float32)
    x, y, z = np.moveaxis(rays, -1, 0)
    inside = np.max([chamber.depth(x, y, z) for chamber in chambers], axis=0) > 0
    last = len(steps) - 1 - np.argmax(inside[::-1], axis=0)
    return np.asarray(rays[last, np.arange(len(points))], dtype=np.float64)


def medical_material(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """One kind of device."""
    makers: tuple[Callable[[np.random.Generator, Body], Drawing], ...] = (
        _pacemaker,
        _port,
        _central_line,
        _sternal_wires,
        _clips,
        _feeding_tube,
        _tracheal_tube,
    )
    weights = np.array([3, 3, 3, 4, 2, 2, 2], dtype=float)
    return [makers[int(rng.choice(len(makers), p=weights / weights.sum()))](rng, scene.body)]


def _device(kind: str, side: Laterality, size_mm: Number, painted: Painted) -> Drawing:
    return Drawing("Medical material", side, None, size_mm, painted, kind)


def _pacemaker(rng: np.random.Generator, body: Body) -> Drawing:
    del rng
    x, y, z = body.at(-82, 78, 60)
    can = Ellipsoid((x, y + 4, z), (25.0, 6.0, 22.0), turn_rad=-0.5)
    course = [
        (-78, 72, 74),
        (-52, 42, 82),
        (-20, 28, 66),
        (24, 16, 48),
        (26, 10, -10),
        (22, 14, -62),
        (-4, 34, -98),
        (-32, 40, -112),
    ]
    lead = path([body.at(*knot) for knot in course], 1.5)
    shell = strokes(Stroke(can, ((0.0, METAL_HU),)))
    return _device("pacemaker", "left", 50, joined(shell, tubes((lead, 2500.0), space="any")))


def _port(rng: np.random.Generator, body: Body) -> Drawing:
    tip = rng.uniform(-45, -10)
    can = Ellipsoid(body.at(78, 80, 52), (14.0, 6.5, 14.0), turn_rad=0.5)
    course = [(72, 74, 62), (52, 44, 88), (40, 20, 92), (27, 14, 48), (26, 8, 10), (25, 8, tip)]
    line = path([body.at(*knot) for knot in course], 1.7)
    shell = strokes(Stroke(can, ((0.0, 2000.0),)))
    return _device("port", "right", 28, joined(shell, tubes((line, 1100.0), space="any")))


def _central_line(rng: np.random.Generator, body: Body) -> Drawing:
    tip = rng.uniform(-50, -5)
    course = [(34, 12, 150), (40, 20, 92), (27, 14, 48), (26, 8, 10), (25, 8, tip)]
    line = path([body.at(*knot) for knot in course], 1.9)
    return _device("central line", "right", 4, tubes((line, 1300.0), space="any"))


def _sternal_wires(rng: np.random.Generator, body: Body) -> Drawing:
    wires = []
    for level in np.linspace(48, -88, 6) + rng.normal(0, 2, 6):
        front = float(np.interp(level, [-105, -40, 10, 45, 62], [97, 91, 80, 62, 50]))
        loop = [
            (-9, front, level - 5),
            (-12, front + 12, level),
            (0, front + 15, level + 3),
            (12, front + 12, level),
            (9, front, level - 5),
        ]
        wires.append((path([body.at(*knot) for knot in loop], 1.1), METAL_HU))
    return _device("sternal wires", "midline", 26, tubes(*wires, space="any"))


def _clips(rng: np.random.Generator, body: Body) -> Drawing:
    right = rng.random() < 0.5
    middle = np.array(body.at(34 if right else -40, 2, -6))
    centers = middle + rng.normal(0, 1, (7, 3)) * [9, 14, 16]
    half = rng.normal(0, 1, (7, 3))
    half *= 3.5 / np.linalg.norm(half, axis=1, keepdims=True)
    radius = np.full(7, 1.3)
    clips = tubes((Tubes(centers - half, centers + half, radius, radius), METAL_HU), space="any")
    return _device("clips", "right" if right else "left", 7, clips)


def _feeding_tube(rng: np.random.Generator, body: Body) -> Drawing:
    del rng
    course = [body.at(x, y, z) for z, x, y, _, _ in reversed(OESOPHAGUS)]
    course.append(body.at(-40, 20, -178))
    tube = path(course, 2.8)
    return _device("feeding tube", "midline", 6, tubes((tube, 700.0), space="any"))


def _tracheal_tube(rng: np.random.Generator, body: Body) -> Drawing:
    tip = rng.uniform(22, 45)
    course = np.array([body.at(0, -8.0, 145), body.at(0, -13.0, 90), body.at(0, -17.0, tip)])
    outer = path(course, 5.8)
    layers = ((outer, 450.0), (outer.grown(-2.0), -990.0))
    return _device("tracheal tube", "midline", 12, tubes(*layers, space="any"))
