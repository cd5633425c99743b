"""Vessels and airways that branch through the lungs, and the fissures.

In: a `Body`. Out: `Trees`, grown once per patient, and the voxels that they paint on a `Canvas`.
"""

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.anatomy import blood_hu
from ctscribe.phantom.body import SIDE_SIGN, SIDES, Body, Side
from ctscribe.phantom.canvas import Canvas
from ctscribe.phantom.grid import Field
from ctscribe.phantom.tubes import Tubes, paint_tubes

GENERATIONS = 9
VEIN = -1
ROOT_RADIUS_MM = 6.6
MURRAY = 0.33
"""A branch that supplies a share s of the lung has s**MURRAY times the root's radius."""
HILUM = {"right": (36.0, -20.0, -18.0), "left": (-38.0, -20.0, -12.0)}
Trees = dict[Side, tuple[Tubes, npt.NDArray[np.int64]]]
"""Per side: vessels, and the generation of each artery or `VEIN`."""


def grow(body: Body) -> Trees:
    """Grows arteries and veins from the hila so that they supply every part of the lungs.

    A branch runs part of the way to the centre of the points it supplies, which are then halved
    across their longest extent (after Tawhai et al., J Appl Physiol 2004, doi
    10.1152/japplphysiol.00520.2004).
    """
    rng = np.random.default_rng(body.seed)
    count = 1 << GENERATIONS
    trees: Trees = {}
    low, high = (np.asarray(corner) for corner in body.cavity.bounds())
    points = rng.uniform(low, high, (count * 14, 3)).astype(np.float32)
    points = points[body.lung_depth(*points.T) > 2]
    for side in SIDES:
        fed = points[points[:, 0] * SIDE_SIGN[side] > 0].astype(np.float64)
        fed = fed[rng.integers(0, len(fed), count + count // 2)]
        hilum = np.array(body.at(*HILUM[side]))
        arteries, generation = _branch(rng, hilum, fed[:count])
        veins, _ = _branch(rng, hilum - [0.0, 4.0, 16.0], fed[count:])
        both = [np.concatenate(pair) for pair in zip(arteries, veins, strict=True)]
        kind = np.concatenate([generation, np.full(len(veins[0]), VEIN)])
        trees[side] = (Tubes(both[0], both[1], both[2], 0.86 * both[2]), kind)
    return trees


def _branch(
    rng: np.random.Generator, root: npt.NDArray[np.float64], fed: npt.NDArray[np.float64]
) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """Start, end and radius of every branch on the way to 2ⁿ points, and its generation."""
    start, groups = root[None], fed[None]
    pieces: list[tuple[npt.NDArray[np.generic], ...]] = []
    while True:
        num_groups, size, _ = groups.shape
        # The first branches are short, as lobar and segmental ones part near the hilum.
        reach = rng.uniform(0.05, 0.15) if 8 * size > len(fed) else rng.uniform(0.34, 0.5)
        reach = reach if size > 1 else 1.0
        end = start + reach * (groups.mean(axis=1) - start)
        radius = ROOT_RADIUS_MM * (size / len(fed)) ** MURRAY * rng.uniform(0.85, 1.1, num_groups)
        pieces.append((start, end, radius, np.full(num_groups, len(pieces))))
        if size == 1:
            break
        axis = np.ptp(groups, axis=1).argmax(axis=1)
        along = np.take_along_axis(groups, axis[:, None, None], axis=2)[:, :, 0]
        order = np.argsort(along, axis=1)[:, :, None]
        groups = np.take_along_axis(groups, order, axis=1).reshape(2 * num_groups, size // 2, 3)
        start = np.repeat(end, 2, axis=0)
    *tubes, generation = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return tubes, generation


def airways(vessels: Tubes, generation: npt.NDArray[np.int64], last_generation: int = 4) -> Tubes:
    """Lumina of airways, which run beside the arteries down to a generation."""
    chosen = vessels[np.flatnonzero((generation > 0) & (generation <= last_generation))]
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
    """Adds the fissures as sheets of 1 mm, spread over the two nearest slices."""
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
