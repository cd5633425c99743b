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
    (0.70, -0.20, 0.50),
    (0.45, 0.50, 0.70),
    (0.70, 0.30, -0.60),
    (0.75, -0.45, -0.20),
)
SIDES: tuple[Side, Side] = ("right", "left")


Trees = dict[Side, tuple[Tubes, npt.NDArray[np.int64]]]
"""Per side: vessels, and the generation of each."""


def grow(body: Body) -> Trees:
    """Grows arteries and veins of both lungs from the hila until they meet a surface."""
    rng = np.random.default_rng(body.seed)
    hila = np.array([body.at(*HILUM[side]) for side in SIDES])
    roots = np.concatenate([np.array(ROOTS) * [SIGN[side], 1, 1] for side in SIDES])
    which = np.repeat([0, 1], len(ROOTS))
    start = hila[which] + rng.normal(0, 4, roots.shape)
    direction = _unit(roots + rng.normal(0, 0.12, roots.shape))
    radius = rng.uniform(3.2, 4.8, len(roots))
    pieces = []
    for generation in range(GENERATIONS):
        if not len(start):
            break
        length = rng.uniform(0.75, 1.25, len(start)) * 29 * 0.87**generation
        end, depth = _deepest(rng, body, start, direction, length, 0.6 if generation else 0.0)
        kept = (depth > 2.5) | (generation == 0)
        start, end, radius, which = start[kept], end[kept], radius[kept], which[kept]
        place = np.full(len(radius), generation)
        pieces.append((start, end, radius, 0.85 * radius, place, which))
        outward = _unit(end - hila[which])
        direction = np.repeat(_unit(_unit(end - start) + 0.3 * outward), 2, axis=0)
        start, which = np.repeat(end, 2, axis=0), np.repeat(which, 2)
        radius = np.repeat(radius, 2) * rng.uniform(0.66, 0.88, 2 * len(end))
    *parts, generations, whose = (np.concatenate(part) for part in zip(*pieces, strict=True))
    tubes = Tubes(*parts)
    rows = [np.flatnonzero(whose == index) for index in range(2)]
    return {side: (tubes[row], generations[row]) for side, row in zip(SIDES, rows, strict=True)}


def _deepest(
    rng: np.random.Generator,
    body: Body,
    start: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    length: npt.NDArray[np.float64],
    spread: float,
) -> tuple[npt.NDArray[np.float64], Field]:
    """Of three turns per branch the end far from any surface, so that the lung fills; its depth."""
    turn = direction + spread * _unit(rng.normal(0, 1, (3, *start.shape)))
    ends = start + _unit(turn) * length[:, None]
    x, y, z = np.moveaxis(ends.astype(np.float32), -1, 0).reshape(3, -1)
    depth = body.lung_depth(x, y, z).reshape(3, -1)
    best = np.argmax(np.minimum(depth, 9) + rng.uniform(0, 2, depth.shape), axis=0)
    columns = np.arange(len(best))
    return ends[best, columns], depth[best, columns]


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
        paint_airways(canvas, lumen[np.flatnonzero(lumen.radius_mm > 0.6 * canvas.grid.edge_mm)])


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
    visible = np.float32(420 * min(1.0, 1.2 / spacing))
    for step, weight in ((0, 1 - share), (1, share)):
        voxels = (lower[rows, columns] + step, rows, columns)
        canvas.hu[voxels] += visible * weight * canvas.lung[voxels]


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9))
