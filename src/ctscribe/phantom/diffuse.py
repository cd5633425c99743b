"""Findings spread over lobes or lungs: emphysema, mosaic, airway disease, septal lines."""

import numpy as np

from ctscribe.phantom.body import SIGN, Lobe, Side
from ctscribe.phantom.canvas import Canvas, Stroke, chunks, coordinates
from ctscribe.phantom.drawing import (
    Drawing,
    Painted,
    Scene,
    draw_lobe,
    draw_side,
    joined,
    lobe_mask,
    millimetres,
    place,
    strokes,
    tubes,
)
from ctscribe.phantom.grid import Field
from ctscribe.phantom.lungs import SIDES
from ctscribe.phantom.shapes import Box, Ellipsoid, Region
from ctscribe.phantom.texture import cell_walls, patches
from ctscribe.phantom.tubes import Tubes


def lung_box(scene: Scene, side: Side, low_mm: float = -170.0, high_mm: float = 106.0) -> Box:
    """A box around one lung between two reference levels."""
    (lx, ly, _), (hx, hy, _) = scene.body.cavity.bounds()
    x = (20.0, hx) if side == "right" else (lx, -20.0)
    z = scene.body.scale[2]
    return (x[0], ly, low_mm * z), (x[1], hy, high_mm * z)


def emphysema(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Dark holes in the upper lobes, dark lung around them, often bullae under the pleura."""
    bullous = rng.random() < 0.45
    drawings = []
    for side in SIDES:
        holes = place(
            rng, scene.body, side, "upper lobe", (4, 60), count=int(rng.integers(110, 240))
        )
        centers = np.array(holes)
        radius = rng.uniform(2.2, 6.5, len(holes))
        size = float(round(2 * radius.max()))
        dark = Ellipsoid(scene.body.at(SIGN[side] * 70, 0, 50), (70.0, 85.0, 75.0))
        haze = strokes(Stroke(dark, ((0.0, -60.0),), "lung", adds=True, soft_mm=30.0))
        spheres = tubes((Tubes(centers, centers + 0.1, radius, radius), -985.0))
        parts: list[Painted] = [haze, spheres]
        if bullous and (side == "right" or rng.random() < 0.6):
            size = millimetres(rng, 30, 0.35, 16, 60)
            for center in place(rng, scene.body, side, "upper lobe", (0.3 * size, 0.55 * size)):
                r = size / 2
                wall = Ellipsoid(center, (r, 0.9 * r, r * rng.uniform(0.9, 1.3)))
                parts.append(strokes(Stroke(wall, ((0.0, -550.0), (1.3, -995.0)), "lung")))
        kind = "bullous" if bullous else "centrilobular"
        painted = joined(*parts)
        box = spheres[0] if not bullous else joined(*parts[1:])[0]
        drawings.append(Drawing("Emphysema", side, "upper lobe", size, box, painted[1], kind))
    return drawings


def mosaic(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Geographic patches of darker and brighter lung in both lungs."""
    size = millimetres(rng, 30, 0.2, 22, 44)
    phase, contrast = rng.uniform(0, 6), rng.uniform(75, 115)
    drawings = []
    for side in SIDES:
        box = lung_box(scene, side)

        def painting(canvas: Canvas, box: Box = box) -> None:
            window = canvas.grid.window(*box)
            for part in chunks(window) if window else ():
                pattern = patches(*coordinates(canvas.grid, part), size, phase)
                canvas.hu[part] += np.float32(contrast) * (pattern + 0.25) * canvas.lung[part]

        drawings.append(Drawing("Mosaic attenuation pattern", side, None, size, box, painting))
    return drawings


def thick_bronchi(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Central airways whose walls are two to four times as thick as normal."""
    _, sides = draw_side(rng, 0.8)
    wall = float(rng.uniform(2.2, 3.6))
    drawings = []
    for side in sides:
        vessels, generation = scene.trees[side]
        chosen = vessels[np.flatnonzero((generation >= 1) & (generation <= 5))]
        beside = np.array([0.4, -1.0, 0.5]) * (1.9 * chosen.radius_mm)[:, None]
        radius = np.clip(0.8 * chosen.radius_mm, 1.7, 3.2)
        lumen = Tubes(chosen.start + beside, chosen.end + beside, radius, 0.9 * radius)
        box, painting = tubes((lumen.grown(wall), 15.0), (lumen, -960.0))
        size = float(round(wall, 1))
        drawings.append(Drawing("Peribronchial thickening", side, None, size, box, painting))
    return drawings


def bronchiectasis(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """Clusters of airways wider than the vessels beside them."""
    _, sides = draw_side(rng, 0.45)
    drawings = []
    for side in sides:
        lobe: Lobe = draw_lobe(rng, side, (2, 2, 4))
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
        box, painting = tubes((lumen.grown(1.9 * scene.lesion_scale), -20.0), (lumen, -975.0))
        drawings.append(Drawing("Bronchiectasis", side, lobe, size, box, painting))
    return drawings


def septal_lines(rng: np.random.Generator, scene: Scene) -> list[Drawing]:
    """A polygonal net of thick lines under the pleura, mostly at the bases."""
    drawings = []
    cell, thick = rng.uniform(15, 21), float(rng.uniform(1.8, 2.6))
    seed = int(rng.integers(1 << 30))
    for side in SIDES:
        lobe: Lobe = "lower lobe" if rng.random() < 0.75 else "upper lobe"
        z, reach = (-90.0, 62.0) if lobe == "lower lobe" else (40.0, 50.0)
        place_x = 92 if lobe == "lower lobe" else 72
        zone = Ellipsoid(scene.body.at(SIGN[side] * place_x, -30, z), (44.0, 62.0, reach))

        def net(x: Field, y: Field, z: Field, zone: Ellipsoid = zone) -> Field:
            lines = thick / 2 - cell_walls(x, y, z, cell, seed)
            return np.asarray(np.minimum(lines, zone.depth(x, y, z)), np.float32)

        shape = Region(zone.bounds(), net)
        box, painting = strokes(Stroke(shape, ((0.0, 420.0),), "lung", adds=True))
        size = float(round(thick, 1))
        drawings.append(Drawing("Interlobular septal thickening", side, lobe, size, box, painting))
    return drawings
