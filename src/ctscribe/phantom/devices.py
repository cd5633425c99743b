"""Medical material: what surgeons and wards leave in a chest."""

from collections.abc import Callable

import numpy as np

from ctscribe.phantom.body import Body
from ctscribe.phantom.canvas import Stroke
from ctscribe.phantom.drawing import Drawing, Painted, Scene, Where, joined, strokes, tubes
from ctscribe.phantom.grid import Number
from ctscribe.phantom.organs import OESOPHAGUS
from ctscribe.phantom.shapes import Ellipsoid
from ctscribe.phantom.tubes import Tubes, path

FINDING = "Medical material"
METAL_HU = 2800.0


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


def _device(kind: str, side: Where, size_mm: Number, painted: Painted) -> Drawing:
    return Drawing(FINDING, side, None, float(round(size_mm)), painted[0], painted[1], kind)


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
