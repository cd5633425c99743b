"""Vessels and airways that branch through the lungs, and the fissures."""

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.body import SIGN, Body, Side
from ctscribe.phantom.canvas import Canvas
from ctscribe.phantom.grid import Field
from ctscribe.phantom.organs import blood_hu
from ctscribe.phantom.tubes import Tubes, paint_tubes

GENERATIONS = 8
HILUM = {"right": (40.0, -22.0, -20.0), "left": (-42.0, -23.0, -16.0)}
ROOTS = (
    (0.35, 0.15, 0.90),
    (0.45, -0.35, 0.80),
    (0.60, 0.65, 0.35),
    (0.60, 0.70, -0.35),
    (0.55, -0.80, 0.10),
    (0.50, -0.30, -0.80),
    (0.60, -0.60, -0.55),
    (0.40, 0.25, -0.90),
    (0.25, -0.55, -0.85),
    (0.80, 0.10, 0.05),
)


Trees = dict[Side, tuple[Tubes, npt.NDArray[np.int64]]]
"""Per side: vessels, and the generation of each."""


def grow_both(body: Body) -> Trees:
    """The vessels of both lungs."""
    return {"right": grow(body, "right"), "left": grow(body, "left")}


def grow(body: Body, side: Side) -> tuple[Tubes, npt.NDArray[np.int64]]:
    """Grows arteries and veins of one lung from its hilum until they meet the pleura."""
    rng = np.random.default_rng([body.seed, int(side == "left")])
    hilum = np.array(body.at(*HILUM[side]))
    roots = np.array(ROOTS) * [SIGN[side], 1, 1] + rng.normal(0, 0.12, (len(ROOTS), 3))
    start = hilum + rng.normal(0, 4, roots.shape)
    direction = _unit(roots)
    radius = rng.uniform(3.4, 4.8, len(roots))
    pieces = []
    for generation in range(GENERATIONS):
        if not len(start):
            break
        length = rng.uniform(0.75, 1.25, len(start)) * 29 * 0.87**generation
        spread = 0.0 if generation == 0 else 0.6
        end = _deepest(rng, body, start, direction, length, spread)
        x, y, z = end.T.astype(np.float32)
        kept = (body.lung_depth(x, y, z) > 2.5) | (generation == 0)
        start, end, radius = start[kept], end[kept], radius[kept]
        pieces.append((start, end, radius, 0.85 * radius, np.full(len(radius), generation)))
        direction = np.repeat(_unit(_unit(end - start) + 0.3 * _unit(end - hilum)), 2, axis=0)
        start = np.repeat(end, 2, axis=0)
        radius = np.repeat(radius, 2) * rng.uniform(0.66, 0.88, 2 * len(end))
    *tubes, generation_of = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return Tubes(*tubes), generation_of


def _deepest(
    rng: np.random.Generator,
    body: Body,
    start: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    length: npt.NDArray[np.float64],
    spread: float,
) -> npt.NDArray[np.float64]:
    """Of three turns per branch, the end farthest from any surface, so that the lung fills."""
    turn = direction + spread * _unit(rng.normal(0, 1, (3, *start.shape)))
    ends = start + _unit(turn) * length[:, None]
    x, y, z = np.moveaxis(ends.astype(np.float32), -1, 0).reshape(3, -1)
    depth = np.minimum(body.lung_depth(x, y, z), 9).reshape(3, -1)
    best = np.argmax(depth + rng.uniform(0, 2, depth.shape), axis=0)
    return np.asarray(ends[best, np.arange(len(best))])


def airways(vessels: Tubes, generation: npt.NDArray[np.int64], last_generation: int = 3) -> Tubes:
    """Lumina that run beside every second artery down to a generation."""
    chosen = vessels[np.flatnonzero(generation <= last_generation)[::2]]
    lumen = 0.72 * chosen.radius_mm
    beside = np.array([0.4, -1.0, 0.5]) * (chosen.radius_mm + lumen)[:, None]
    return Tubes(chosen.start + beside, chosen.end + beside, lumen, 0.85 * lumen)


def paint_lungs(canvas: Canvas, body: Body, trees: Trees) -> None:
    """Paints fissures, vessels and airways into the lungs."""
    _paint_fissures(canvas, body)
    for vessels, generation in trees.values():
        paint_tubes(canvas, vessels, blood_hu(body, arterial=False))
        lumen = airways(vessels, generation)
        paint_airways(canvas, lumen[np.flatnonzero(lumen.radius_mm > 0.5 * canvas.grid.edge_mm)])


def paint_airways(canvas: Canvas, lumen: Tubes, wall_mm: float = 0.9, wall_hu: float = 0.0) -> None:
    """Paints air tubes with a wall around them."""
    paint_tubes(canvas, lumen.grown(wall_mm), wall_hu)
    paint_tubes(canvas, lumen, -980.0)


def _paint_fissures(canvas: Canvas, body: Body) -> None:
    """Adds the fissures as sheets of 1 mm, each pixel's share going to the two nearest slices."""
    x, y = canvas.grid.plane[0][0], canvas.grid.plane[1][0]
    right = body.oblique_level("right", y) + 3 * np.sin(0.045 * x)
    left = body.oblique_level("left", y) + 3 * np.sin(0.045 * x)
    minor = body.minor_level(y) + 3 * np.sin(0.05 * x)
    _add_sheet(canvas, np.where(x > 0, right, left), x == x)
    _add_sheet(canvas, minor, (x > 0) & (minor > right))


def _add_sheet(canvas: Canvas, level_mm: Field, where: npt.NDArray[np.bool_]) -> None:
    spacing = canvas.grid.spacing_mm[2]
    place = (level_mm - canvas.grid.levels[0]) / spacing
    lower = np.floor(place).astype(np.int64)
    rows, columns = np.nonzero(where & (lower >= 0) & (lower < canvas.grid.shape_zyx[0] - 1))
    share = (place - lower)[rows, columns]
    visible = np.float32(650 * min(1.0, 1.2 / spacing))
    for step, weight in ((0, 1 - share), (1, share)):
        voxels = (lower[rows, columns] + step, rows, columns)
        canvas.hu[voxels] += visible * weight * canvas.lung[voxels]


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9))
