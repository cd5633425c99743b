"""What a finding is once it is decided: where it lies, how large it is, how it is painted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.body import SIDE_SIGN, Body, Lobe, Side
from ctscribe.phantom.canvas import Canvas, Stroke, paint
from ctscribe.phantom.grid import Field, Number, Point
from ctscribe.phantom.lungs import Trees
from ctscribe.phantom.shapes import Box, Region, Shape, union
from ctscribe.phantom.tubes import Tubes, paint_tubes

Laterality = Literal["right", "left", "both", "midline"]


@final
@dataclass(frozen=True)
class Scene:
    """What findings are placed in: a body and the vessels of its lungs.

    Small lesions are drawn ``lesion_scale`` times their usual size, for grids that are too
    coarse to show real ones. ``nodule_mm`` is the median diameter of nodules before that.
    """

    body: Body
    trees: Trees
    lesion_scale: float = 1.0
    nodule_mm: float = 9.0

    def enlarged(self, size_mm: Number, most_mm: Number) -> float:
        """A small lesion's size on this scene's scale, in whole mm, at most ``most_mm``."""
        if self.lesion_scale == 1.0:
            return float(size_mm)
        return float(round(max(size_mm, min(self.lesion_scale * size_mm, most_mm))))


@final
@dataclass(frozen=True)
class Drawing:
    """One object of a finding.

    Args:
        finding: One of `findings.FINDINGS`.
        side: Laterality it lies.
        lobe: Lobe or lobes, None outside the lungs.
        size_mm: Largest axial diameter, or thickness for layers.
        box: Body-frame box in mm.
        paint: Paints it over the anatomy; nothing for what the body itself already shows.
        kind: Which variety, for the wording.
        short_mm: Second diameter, where reports give two.
        site: Anatomical site, for the wording.
    """

    finding: str
    side: Laterality
    lobe: str | None
    size_mm: Number
    box: Box
    paint: Callable[[Canvas], None]
    kind: str = ""
    short_mm: Number = 0.0
    site: str = ""


Painted = tuple[Box, Callable[[Canvas], None]]
"""A body-frame box, and what paints into it."""
DrawFinding = Callable[[np.random.Generator, Scene], list[Drawing]]
"""Decides all objects of one finding."""


def strokes(*parts: Stroke) -> Painted:
    """Box and painting function of solids."""
    return union([part.shape.bounds() for part in parts]), lambda canvas: paint(canvas, parts)


def tubes(*layers: tuple[Tubes, float], space: Literal["any", "lung"] = "lung") -> Painted:
    """Box and painting function of (tubes, HU) painted in order."""

    def painting(canvas: Canvas) -> None:
        for shape, hu in layers:
            paint_tubes(canvas, shape, hu, space)

    return union([shape.bounds() for shape, _ in layers]), painting


def joined(*parts: Painted) -> Painted:
    """Box around several things, and one function that paints them in order."""

    def painting(canvas: Canvas) -> None:
        for _, paint_part in parts:
            paint_part(canvas)

    return union([box for box, _ in parts]), painting


def place(
    rng: np.random.Generator,
    body: Body,
    side: Side,
    lobe: Lobe | None,
    depth_mm: tuple[Number, Number],
    *,
    count: int = 1,
) -> list[Point]:
    """Random positions in a lung or lobe whose distance to its surface lies in a range.

    The range is widened step by step where a lobe is too small for it.
    """
    (lx, ly, _), (hx, hy, hz) = body.cavity.bounds()
    low = np.array([2.0 if side == "right" else lx, ly, -185.0 * body.scale[2]])
    high = np.array([hx if side == "right" else -2.0, hy, hz])
    points = rng.uniform(low, high, (600 + 100 * count, 3)).astype(np.float32)
    x, y, z = points.T
    depth = body.lung_depth(x, y, z)
    suits = lobe_mask(body, side, lobe, y, z) & (depth > 0)
    for slack in (0.0, 3.0, 6.0, 12.0, 50.0):
        fits = suits & (depth >= depth_mm[0] - slack) & (depth <= depth_mm[1] + slack)
        chosen = points[fits][:count]
        if len(chosen) == count or slack == 50.0:
            return [(float(a), float(b), float(c)) for a, b, c in chosen]
    return []


def lobe_mask(
    body: Body,
    side: Side,
    lobe: Lobe | None,
    y: Field,
    z: Field,
) -> npt.NDArray[np.bool_]:
    """Which positions of one side belong to a lobe; all do for None."""
    lower = z < body.oblique_level(side, y)
    middle = ~lower & (z < body.minor_level(y)) if side == "right" else np.zeros_like(lower)
    if lobe is None:
        return np.ones_like(lower)
    if lobe == "lower lobe":
        return lower
    return middle if lobe == "middle lobe" else ~lower & ~middle


def lobar(body: Body, side: Side, lobe: Lobe, shape: Shape) -> Region:
    """The part of a solid inside one lobe, cut off sharply at the fissures."""

    def depth(x: Field, y: Field, z: Field) -> Field:
        above = z - body.oblique_level(side, y)
        cut = np.minimum(shape.depth(x, y, z), -above if lobe == "lower lobe" else above)
        if side == "right" and lobe != "lower lobe":
            over = z - body.minor_level(y)
            cut = np.minimum(cut, over if lobe == "upper lobe" else -over)
        return np.asarray(cut, np.float32)

    return Region(shape.bounds(), depth)


def visible_box(body: Body, shape: Shape, box: Box) -> Box:
    """The box around the part of a solid that lies in the lungs; ``box`` where none does."""
    axes = [np.linspace(low, high, 15, dtype=np.float32) for low, high in zip(*box, strict=True)]
    x, y, z = (axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij"))
    rows = np.flatnonzero(shape.depth(x, y, z) > 0)
    rows = rows[body.lung_depth(x[rows], y[rows], z[rows]) > 0] if len(rows) else rows
    if not len(rows):
        return box
    low, high = ([float(reduce(axis[rows])) for axis in (x, y, z)] for reduce in (np.min, np.max))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def axial_size(box: Box) -> float:
    """Larger axial side of a box in whole millimetres."""
    (ax, ay, _), (bx, by, _) = box
    return float(round(max(bx - ax, by - ay)))


def draw_side(rng: np.random.Generator, both: float) -> tuple[Laterality, tuple[Side, ...]]:
    """One side or both: the word, and the sides."""
    if rng.random() < both:
        return "both", ("right", "left")
    side: Side = "right" if rng.random() < 0.55 else "left"
    return side, (side,)


def draw_lobe(rng: np.random.Generator, side: Side, weights: Sequence[Number] = (3, 1, 4)) -> Lobe:
    """A lobe of a side, by weights of upper, middle and lower; the left has no middle lobe."""
    lobes: tuple[Lobe, ...] = ("upper lobe", "middle lobe", "lower lobe")
    share = np.array(weights, dtype=float)
    if side == "left":
        share[1] = 0
    return lobes[int(rng.choice(3, p=share / share.sum()))]


def mirrored(side: Side, point: Point) -> Point:
    """A position given for the right side, on ``side``."""
    return SIDE_SIGN[side] * point[0], point[1], point[2]


def millimetres(
    rng: np.random.Generator, median: Number, spread: float, low: Number, high: Number
) -> float:
    """A whole number of millimetres from a log-normal, kept in a range."""
    return float(round(float(np.clip(rng.lognormal(np.log(median), spread), low, high))))
