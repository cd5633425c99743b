"""Focal findings of the lungs: nodules, opacities, consolidation, atelectasis, scars, effusion."""

import numpy as np

from ctscribe.phantom.body import SIGN, Lobe, Side
from ctscribe.phantom.canvas import Stroke
from ctscribe.phantom.drawing import (
    Drawing,
    Scene,
    axial_size,
    draw_lobe,
    draw_side,
    joined,
    lobar,
    millimetres,
    place,
    strokes,
    tubes,
    visible_box,
)
from ctscribe.phantom.grid import Field
from ctscribe.phantom.shapes import Ellipsoid, Region
from ctscribe.phantom.tubes import Tubes


def nodules(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """One to six round nodules of 4–28 mm."""
    drawings = []
    for _ in range(1 + min(int(rng.poisson(1.6)), 5)):
        side: Side = "right" if rng.random() < 0.55 else "left"
        lobe = draw_lobe(rng, side)
        size = scene.enlarged(millimetres(rng, scene.nodule_mm, 0.5, 4, 28), 30)
        for center in place(rng, scene.body, side, lobe, (0.5 * size + 2, 45)):
            r = size / 2
            radii = (r, r * rng.uniform(0.85, 1), r * rng.uniform(0.8, 1.1))
            calcified = rng.random() < 0.12
            hu = rng.uniform(250, 600) if calcified else rng.uniform(20, 70)
            shape = Ellipsoid(center, radii, turn_rad=rng.uniform(0, 3), wave_mm=0.08 * size)
            box, painting = strokes(Stroke(shape, ((0.0, hu),), "lung"))
            kind = "calcified" if calcified else "solid"
            drawings.append(Drawing("Lung nodule", side, lobe, size, box, painting, kind))
    return sorted(drawings, key=lambda drawing: -drawing.size_mm)


def opacities(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Patches of ground-glass density through which vessels stay visible."""
    _, sides = draw_side(rng, 0.55)
    drawings = []
    for side in sides:
        for _ in range(1 + int(rng.poisson(0.8))):
            lobe = draw_lobe(rng, side, (3, 1, 5))
            size = millimetres(rng, 48, 0.35, 22, 90)
            for center in place(rng, scene.body, side, lobe, (4, 28)):
                r = size / 2
                shape = Ellipsoid(
                    center,
                    (r, r * rng.uniform(0.6, 1), r * rng.uniform(0.6, 1.1)),
                    turn_rad=rng.uniform(0, 3),
                    wave_mm=0.12 * size,
                    wave_length_mm=rng.uniform(18, 32),
                    phase=rng.uniform(0, 6),
                )
                gain = rng.uniform(230, 400)
                stroke = Stroke(shape, ((0.0, gain),), "lung", adds=True, soft_mm=9.0)
                box, painting = strokes(stroke)
                box = visible_box(scene.body, shape, box)
                size = axial_size(box)
                drawings.append(Drawing("Lung opacity", side, lobe, size, box, painting))
    return drawings


def consolidations(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Airless lung against the pleura, with air bronchograms."""
    _, sides = draw_side(rng, 0.3)
    drawings = []
    for side in sides:
        lobe = draw_lobe(rng, side, (2, 1.5, 5))
        size = millimetres(rng, 58, 0.3, 30, 100)
        for center in place(rng, scene.body, side, lobe, (2, 12)):
            r = size / 2
            shape = Ellipsoid(
                center,
                (r, r * rng.uniform(0.65, 1), r * rng.uniform(0.7, 1.1)),
                turn_rad=rng.uniform(0, 3),
                wave_mm=0.08 * size,
                wave_length_mm=rng.uniform(22, 34),
                phase=rng.uniform(0, 6),
            )
            part = lobar(scene.body, side, lobe, shape)
            solid = strokes(Stroke(part, ((0.0, rng.uniform(20, 55)),), "lung", soft_mm=4.0))
            start = np.array(center) + rng.normal(0, 0.12 * size, (4, 3))
            reach = rng.normal(0, 0.3 * size, (4, 3))
            radius = rng.uniform(1.0, 1.9, 4)
            air = Tubes(start - reach, start + reach, radius, radius)
            _, painting = joined(solid, tubes((air, -820.0)))
            box = visible_box(scene.body, part, part.bounds())
            size = axial_size(box)
            drawings.append(Drawing("Consolidation", side, lobe, size, box, painting))
    return drawings


def atelectases(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Plates of collapsed lung, mostly at the bases."""
    _, sides = draw_side(rng, 0.45)
    drawings = []
    for side in sides:
        lobe: Lobe = draw_lobe(rng, side, (1.5, 2.5, 6))
        thickness = scene.enlarged(millimetres(rng, 6, 0.3, 4, 12), 24)
        for center in place(rng, scene.body, side, lobe, (5, 18)):
            plate = Ellipsoid(
                center,
                (rng.uniform(26, 46), thickness / 2, rng.uniform(14, 26)),
                turn_rad=SIGN[side] * rng.uniform(-0.9, 0.6),
                tilt_rad=rng.uniform(-0.5, 0.5),
                wave_mm=1.5,
                wave_length_mm=40.0,
            )
            box, painting = strokes(Stroke(plate, ((0.0, 35.0),), "lung"))
            drawings.append(Drawing("Atelectasis", side, lobe, thickness, box, painting))
    return drawings


def scars(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Pleuroparenchymal scars: a cap of thick pleura with strands that draw towards it."""
    _, sides = draw_side(rng, 0.5)
    apical = rng.random() < 0.75
    drawings = []
    for side in sides:
        lobe: Lobe = "upper lobe" if apical else draw_lobe(rng, side, (0, 2, 3))
        low = 58.0 * scene.body.scale[2] if apical else -300.0
        candidates = place(rng, scene.body, side, lobe, (1, 9), count=60)
        high_enough = [p for p in candidates if p[2] > low] or candidates
        if not high_enough:
            continue
        centre = np.array(high_enough[0])
        size = scene.enlarged(millimetres(rng, 34, 0.25, 20, 60), 80)
        fan = centre + rng.normal(0, 0.22 * size, (9, 3))
        ends = fan + rng.normal(0, 1, (9, 3)) * 0.28 * size
        radius = scene.lesion_scale * rng.uniform(0.8, 2.2, 9)
        strands = tubes((Tubes(fan, ends, radius, 0.6 * radius), 45.0))
        r = (0.42 * size, 0.2 * size, 0.34 * size)
        core = Ellipsoid(
            (float(centre[0]), float(centre[1]), float(centre[2])),
            r,
            turn_rad=rng.uniform(0, 3),
            wave_mm=0.12 * size,
            wave_length_mm=11.0,
            phase=rng.uniform(0, 6),
        )
        clump = strokes(Stroke(core, ((0.0, 30.0),), "lung", soft_mm=3.0))
        box, painting = joined(strands, clump)
        kind = "apical" if apical else "basal"
        drawings.append(
            Drawing("Pulmonary fibrotic sequela", side, lobe, size, box, painting, kind)
        )
    return drawings


def effusions(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Free fluid that layers behind the lungs."""
    body = scene.body
    _, sides = draw_side(rng, 0.5)
    drawings = []
    for side in sides:
        thick = millimetres(rng, 24, 0.5, 9, 65)
        top = (-150 + 2.2 * thick + rng.uniform(20, 60)) * body.scale[2]
        top = min(float(top), 60.0)

        def fluid(
            x: Field, y: Field, z: Field, thick: float = thick, top: float = top, side: Side = side
        ) -> Field:
            from_wall = body.cavity.depth(x, y, z)
            height = np.clip((top - z) / 70, 0, 1) ** 0.7
            behind = np.clip((25 + 0.3 * thick - y) / 80, 0, 1)
            layer = thick * height * behind - from_wall
            return np.asarray(np.minimum(layer, SIGN[side] * x), np.float32)

        (lx, ly, lz), (hx, hy, _) = body.cavity.bounds()
        x_range = (0.0, hx) if side == "right" else (lx, 0.0)
        front = min(hy, 25 + 0.3 * thick)
        region = Region(((x_range[0], ly, lz + 40), (x_range[1], front, top)), fluid)
        _, painting = strokes(Stroke(region, ((0.0, 12.0),), "lung"))
        box = visible_box(body, region, region.box)
        drawings.append(Drawing("Pleural effusion", side, None, thick, box, painting))
    return drawings
