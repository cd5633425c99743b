"""Draws findings of the lungs, airways and pleura; one per function.

In: a random generator and a `Scene`. Out: `Drawing`s, whose sizes and boxes are those painted.
"""

from collections.abc import Iterator

import numpy as np

from ctscribe.phantom.body import SIDE_SIGN, SIDES, Lobe, Side
from ctscribe.phantom.canvas import Canvas, Stroke, chunks, coordinates
from ctscribe.phantom.drawing import (
    Drawing,
    Painted,
    Scene,
    axial_size,
    draw_lobe,
    draw_side,
    draw_sides,
    joined,
    lobar,
    lobe_mask,
    millimetres,
    place,
    strokes,
    tubes,
    visible_box,
)
from ctscribe.phantom.grid import Field, Point
from ctscribe.phantom.shapes import Box, Ellipsoid, Region
from ctscribe.phantom.tubes import Tubes


def nodules(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """One to six round nodules of 4–28 mm, or 2–28 mm if the median is below 4; largest first."""
    least_mm = 4 if scene.nodule_mm >= 4 else 2
    drawings = []
    for _ in range(1 + min(int(rng.poisson(1.6)), 5)):
        side = draw_side(rng)
        lobe = draw_lobe(rng, side)
        size = scene.enlarged(millimetres(rng, scene.nodule_mm, 0.5, least_mm, 28), 30)
        for center in place(rng, scene.body, side, lobe, (0.5 * size + 2, 45)):
            r = size / 2
            radii = (r, r * rng.uniform(0.85, 1), r * rng.uniform(0.8, 1.1))
            calcified = rng.random() < 0.12
            hu = rng.uniform(250, 600) if calcified else rng.uniform(20, 70)
            shape = Ellipsoid(center, radii, turn_rad=rng.uniform(0, 3), wave_mm=0.08 * size)
            painted = strokes(Stroke(shape, ((0.0, hu),), "lung"))
            kind = "calcified" if calcified else "solid"
            drawings.append(Drawing("Lung nodule", side, lobe, size, painted, kind))
    return sorted(drawings, key=lambda drawing: -drawing.size_mm)


def opacities(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Patches of ground-glass density through which vessels stay visible."""
    for side in draw_sides(rng, 0.55):
        for _ in range(1 + int(rng.poisson(0.8))):
            lobe = draw_lobe(rng, side, (3, 1, 5))
            size = millimetres(rng, 48, 0.35, 22, 90)
            for center in place(rng, scene.body, side, lobe, (4, 28)):
                shape = _patch(rng, center, size, (0.6, 0.6), 0.12, (18.0, 32.0))
                gain = rng.uniform(230, 400)
                haze = strokes(Stroke(shape, ((0.0, gain),), "lung", adds=True, soft_mm=9.0))
                box = visible_box(scene.body, shape)
                painted = Painted(box, haze.paint)
                yield Drawing("Lung opacity", side, lobe, axial_size(box), painted)


def consolidations(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Airless lung against the pleura, with air bronchograms."""
    for side in draw_sides(rng, 0.3):
        lobe = draw_lobe(rng, side, (2, 1.5, 5))
        size = millimetres(rng, 58, 0.3, 30, 100)
        for center in place(rng, scene.body, side, lobe, (2, 12)):
            shape = _patch(rng, center, size, (0.65, 0.7), 0.08, (22.0, 34.0))
            part = lobar(scene.body, side, lobe, shape)
            solid = strokes(Stroke(part, ((0.0, rng.uniform(20, 55)),), "lung", soft_mm=4.0))
            start = np.array(center) + rng.normal(0, 0.12 * size, (4, 3))
            reach = rng.normal(0, 0.3 * size, (4, 3))
            radius = rng.uniform(1.0, 1.9, 4)
            air = Tubes(start - reach, start + reach, radius, radius)
            box = visible_box(scene.body, part)
            painted = Painted(box, joined(solid, tubes((air, -820.0))).paint)
            yield Drawing("Consolidation", side, lobe, axial_size(box), painted)


def _patch(
    rng: np.random.Generator,
    center: Point,
    size_mm: float,
    narrowest: tuple[float, float],
    wave: float,
    wave_length_mm: tuple[float, float],
) -> Ellipsoid:
    """A solid of irregular outline.

    Args:
        rng: Draws its shape.
        center: In body mm.
        size_mm: Largest diameter.
        narrowest: Smallest extent along the other axial axis and along z, as shares of the size.
        wave: Height of the surface's bumps, as a share of the size.
        wave_length_mm: Range of the bumps' wavelength.
    """
    r = size_mm / 2
    return Ellipsoid(
        center,
        (r, r * rng.uniform(narrowest[0], 1), r * rng.uniform(narrowest[1], 1.1)),
        turn_rad=rng.uniform(0, 3),
        wave_mm=wave * size_mm,
        wave_length_mm=rng.uniform(*wave_length_mm),
        phase=rng.uniform(0, 6),
    )


def atelectases(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Plates of collapsed lung, mostly at the bases."""
    for side in draw_sides(rng, 0.45):
        lobe = draw_lobe(rng, side, (1.5, 2.5, 6))
        thickness = scene.enlarged(millimetres(rng, 6, 0.3, 4, 12), 24)
        for center in place(rng, scene.body, side, lobe, (5, 18)):
            plate = Ellipsoid(
                center,
                (rng.uniform(26, 46), thickness / 2, rng.uniform(14, 26)),
                turn_rad=SIDE_SIGN[side] * rng.uniform(-0.9, 0.6),
                tilt_rad=rng.uniform(-0.5, 0.5),
                wave_mm=1.5,
                wave_length_mm=40.0,
            )
            painted = strokes(Stroke(plate, ((0.0, 35.0),), "lung"))
            yield Drawing("Atelectasis", side, lobe, thickness, painted)


def fibrotic_sequelae(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Pleuroparenchymal scars: a cap of thick pleura with strands that draw towards it."""
    sides = draw_sides(rng, 0.5)
    apical = rng.random() < 0.75
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
        core = Ellipsoid(
            high_enough[0],
            (0.42 * size, 0.2 * size, 0.34 * size),
            turn_rad=rng.uniform(0, 3),
            wave_mm=0.12 * size,
            wave_length_mm=11.0,
            phase=rng.uniform(0, 6),
        )
        clump = strokes(Stroke(core, ((0.0, 30.0),), "lung", soft_mm=3.0))
        kind = "apical" if apical else "basal"
        painted = joined(strands, clump)
        yield Drawing("Pulmonary fibrotic sequela", side, lobe, size, painted, kind)


def pleural_effusions(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Free fluid that layers behind the lungs."""
    body = scene.body
    for side in draw_sides(rng, 0.5):
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
            return np.asarray(np.minimum(layer, SIDE_SIGN[side] * x), np.float32)

        (lx, ly, lz), (hx, hy, _) = body.cavity.bounds()
        x_range = (0.0, hx) if side == "right" else (lx, 0.0)
        front = min(hy, 25 + 0.3 * thick)
        region = Region(((x_range[0], ly, lz + 40), (x_range[1], front, top)), fluid)
        layer = strokes(Stroke(region, ((0.0, 12.0),), "lung"))
        painted = Painted(visible_box(body, region), layer.paint)
        yield Drawing("Pleural effusion", side, None, thick, painted)


def emphysema(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Dark holes in the upper lobes, dark lung around them, often bullae under the pleura."""
    bullous = rng.random() < 0.45
    for side in SIDES:
        holes = place(
            rng, scene.body, side, "upper lobe", (4, 60), count=int(rng.integers(110, 240))
        )
        centers = np.array(holes)
        radius = rng.uniform(2.2, 6.5, len(holes))
        size = float(round(2 * radius.max()))
        dark = Ellipsoid(scene.body.at(SIDE_SIGN[side] * 70, 0, 50), (70.0, 85.0, 75.0))
        haze = strokes(Stroke(dark, ((0.0, -60.0),), "lung", adds=True, soft_mm=30.0))
        parts = [haze, tubes((Tubes(centers, centers + 0.1, radius, radius), -985.0))]
        if bullous and (side == "right" or rng.random() < 0.6):
            size = millimetres(rng, 30, 0.35, 16, 60)
            for center in place(rng, scene.body, side, "upper lobe", (0.3 * size, 0.55 * size)):
                r = size / 2
                wall = Ellipsoid(center, (r, 0.9 * r, r * rng.uniform(0.9, 1.3)))
                parts.append(strokes(Stroke(wall, ((0.0, -550.0), (1.3, -995.0)), "lung")))
        painted = Painted(joined(*parts[1:]).box, joined(*parts).paint)
        kind = "bullous" if bullous else "centrilobular"
        yield Drawing("Emphysema", side, "upper lobe", size, painted, kind)


def mosaic_attenuation(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Geographic patches of darker and brighter lung in both lungs."""
    size = millimetres(rng, 30, 0.2, 22, 44)
    phase, contrast = rng.uniform(0, 6), rng.uniform(75, 115)
    for side in SIDES:
        box = _lung_box(scene, side)

        def painting(canvas: Canvas, box: Box = box) -> None:
            block = canvas.grid.block(*box)
            for part in chunks(block) if block else ():
                pattern = _patches(*coordinates(canvas.grid, part), size, phase)
                canvas.hu[part] += np.float32(contrast) * (pattern + 0.25) * canvas.lung[part]

        yield Drawing("Mosaic attenuation pattern", side, None, size, Painted(box, painting))


def peribronchial_thickening(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Central airways whose walls are two to four times as thick as normal."""
    sides = draw_sides(rng, 0.8)
    wall = float(rng.uniform(2.2, 3.6))
    for side in sides:
        vessels, generation = scene.trees[side]
        chosen = vessels[np.flatnonzero((generation >= 1) & (generation <= 5))]
        beside = np.array([0.4, -1.0, 0.5]) * (1.9 * chosen.radius_mm)[:, None]
        radius = np.clip(0.8 * chosen.radius_mm, 1.7, 3.2)
        lumen = Tubes(chosen.start + beside, chosen.end + beside, radius, 0.9 * radius)
        painted = tubes((lumen.grown(wall), 15.0), (lumen, -960.0))
        yield Drawing("Peribronchial thickening", side, None, float(round(wall, 1)), painted)


def bronchiectasis(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """Clusters of airways wider than the vessels beside them."""
    for side in draw_sides(rng, 0.45):
        lobe = draw_lobe(rng, side, (2, 2, 4))
        vessels, generation = scene.trees[side]
        middle = ((vessels.start + vessels.end) / 2).astype(np.float32)
        inside = lobe_mask(scene.body, side, lobe, middle[:, 1], middle[:, 2])
        rows = np.flatnonzero(inside & (generation >= 3) & (generation <= 6))
        if len(rows) < 4:
            rows = np.flatnonzero((generation >= 3) & (generation <= 6))
        seed = middle[rng.choice(rows)]
        order = np.argsort(np.linalg.norm(middle[rows] - seed, axis=1))
        chosen = vessels[rows[order[: int(rng.integers(7, 13))]]]
        size = scene.enlarged(millimetres(rng, 9, 0.2, 7, 14), 24)
        radius = size / 2 * rng.uniform(0.75, 1.0, len(chosen))
        beside = np.array([0.5, -1.0, 0.4]) * (0.6 * radius)[:, None]
        lumen = Tubes(chosen.start + beside, chosen.end + beside, radius, 0.85 * radius)
        painted = tubes((lumen.grown(1.9 * scene.lesion_scale), -20.0), (lumen, -975.0))
        yield Drawing("Bronchiectasis", side, lobe, size, painted)


def septal_thickening(rng: np.random.Generator, scene: Scene) -> Iterator[Drawing]:
    """A polygonal net of thick lines under the pleura, mostly at the bases."""
    cell, thick = rng.uniform(15, 21), float(rng.uniform(1.8, 2.6))
    seed = int(rng.integers(1 << 30))
    for side in SIDES:
        lobe: Lobe = "lower lobe" if rng.random() < 0.75 else "upper lobe"
        z, reach = (-90.0, 62.0) if lobe == "lower lobe" else (40.0, 50.0)
        place_x = 92 if lobe == "lower lobe" else 72
        zone = Ellipsoid(scene.body.at(SIDE_SIGN[side] * place_x, -30, z), (44.0, 62.0, reach))

        def net(x: Field, y: Field, z: Field, zone: Ellipsoid = zone) -> Field:
            lines = thick / 2 - _cell_walls(x, y, z, cell, seed)
            return np.asarray(np.minimum(lines, zone.depth(x, y, z)), np.float32)

        shape = Region(zone.bounds(), net)
        painted = strokes(Stroke(shape, ((0.0, 420.0),), "lung", adds=True))
        size = float(round(thick, 1))
        yield Drawing("Interlobular septal thickening", side, lobe, size, painted)


def _cell_walls(x: Field, y: Field, z: Field, cell_mm: float, seed: int) -> Field:
    """Distance in mm to the nearest wall between random polygonal cells of a mean size.

    Half of Worley's F2 − F1 (SIGGRAPH 1996, doi 10.1145/237170.237267).
    """
    rng = np.random.default_rng(seed)
    jitter = rng.random((17, 17, 17, 3), dtype=np.float32)
    places = [np.asarray(axis / np.float32(cell_mm), np.float32) for axis in (x, y, z)]
    cells = [np.floor(place).astype(np.int64) for place in places]
    inner = [place - cell for place, cell in zip(places, cells, strict=True)]
    shape = np.broadcast_shapes(*(place.shape for place in places))
    nearest = np.full(shape, 9.0, np.float32)
    second = np.full(shape, 9.0, np.float32)
    for dx, dy, dz in np.ndindex(3, 3, 3):
        step = (dx - 1, dy - 1, dz - 1)
        point = jitter[
            (cells[0] + step[0]) % 17, (cells[1] + step[1]) % 17, (cells[2] + step[2]) % 17
        ]
        distance = sum((inner[axis] - step[axis] - point[..., axis]) ** 2 for axis in range(3))
        np.minimum(second, np.maximum(nearest, distance), out=second)
        np.minimum(nearest, distance, out=nearest)
    return np.asarray((np.sqrt(second) - np.sqrt(nearest)) * (0.5 * cell_mm), np.float32)


def _patches(x: Field, y: Field, z: Field, size_mm: float, phase: float) -> Field:
    """A pattern in [−1, 1] of patches about `size_mm` wide with fairly sharp borders."""
    k = np.float32(np.pi / size_mm)
    first = np.sin(k * x + 0.5 * np.sin(0.8 * k * y) + phase) * np.sin(k * y + 1.7 * phase)
    across = np.sin(0.7 * k * (x + y) + 2.3 * phase)
    up = np.sin(k * z + phase)
    return np.asarray(np.clip(2.2 * (first + across * up), -1, 1), np.float32)


def _lung_box(scene: Scene, side: Side, low_mm: float = -170.0, high_mm: float = 106.0) -> Box:
    """A box around one lung between two reference levels."""
    (lx, ly, _), (hx, hy, _) = scene.body.cavity.bounds()
    x = (20.0, hx) if side == "right" else (lx, -20.0)
    z = scene.body.scale[2]
    return (x[0], ly, low_mm * z), (x[1], hy, high_mm * z)
