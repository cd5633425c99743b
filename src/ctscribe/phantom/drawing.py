"""Shared by `lung_findings` and `chest_findings`: scenes, drawings, random places and sizes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np
import numpy.typing as npt

from ctscribe.phantom.body import SIDES, Body, Lobe, Side
from ctscribe.phantom.canvas import Canvas, Stroke, paint
from ctscribe.phantom.grid import Field, Number, Point
from ctscribe.phantom.lungs import Trees
from ctscribe.phantom.shapes import Box, Region, Shape, box_of, union
from ctscribe.phantom.tubes import Tubes, paint_tubes

Laterality = Literal["right", "left", "midline"]


@final
@dataclass(frozen=True)
class Scene:
    """A body and the vessels of its lungs, in which findings are placed.

    Small lesions are drawn ``lesion_scale`` times their usual size, for grids that are too coarse
    to show real ones. ``nodule_mm`` is the median diameter of nodules without that scale.
    """

    body: Body
    trees: Trees
    lesion_scale: float = 1.0
    nodule_mm: float = 9.0

    def enlarged(self, size_mm: Number, most_mm: Number) -> float:
        """A small lesion's size times ``lesion_scale``, in whole mm, at most ``most_mm``."""
        if self.lesion_scale == 1.0:
            return float(size_mm)
        return float(round(max(size_mm, min(self.lesion_scale * size_mm, most_mm))))


class Painted(NamedTuple):
    """A body-frame box in mm, and the function that paints into it."""

    box: Box
    paint: Callable[[Canvas], None]


@final
@dataclass(frozen=True)
class Drawing:
    """One object of a finding.

    Args:
        finding: One of `findings.FINDINGS`.
        side: Its side.
        lobe: Its lobe; None outside the lungs and for findings of a whole lung.
        size_mm: Largest axial diameter, or thickness for layers.
        painted: Its box, and the function that paints it over the anatomy.
        kind: Its variety, for the wording.
        short_mm: Second diameter, where reports give two.
        site: Anatomical site, for the wording.
    """

    finding: str
    side: Laterality
    lobe: Lobe | None
    size_mm: Number
    painted: Painted
    kind: str = ""
    short_mm: Number = 0.0
    site: str = ""


DrawFinding = Callable[[np.random.Generator, Scene], Iterable[Drawing]]
"""Draws all objects of one finding."""


def strokes(*parts: Stroke) -> Painted:
    """Solids, painted in order."""
    return Painted(
        union([part.shape.bounds() for part in parts]), lambda canvas: paint(canvas, parts)
    )


def tubes(*layers: tuple[Tubes, float], space: Literal["any", "lung"] = "lung") -> Painted:
    """Tubes and their HU, painted in order."""

    def painting(canvas: Canvas) -> None:
        for shape, hu in layers:
            paint_tubes(canvas, shape, hu, space)

    return Painted(union([shape.bounds() for shape, _ in layers]), painting)


def joined(*parts: Painted) -> Painted:
    """Several parts as one, painted in order."""

    def painting(canvas: Canvas) -> None:
        for part in parts:
            part.paint(canvas)

    return Painted(union([part.box for part in parts]), painting)


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
    body: Body, side: Side, lobe: Lobe | None, y: Field, z: Field
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


def visible_box(body: Body, shape: Shape) -> Box:
    """The box around the part of a solid in the lungs, or its own box if none of it is there."""
    box = shape.bounds()
    axes = [np.linspace(low, high, 15, dtype=np.float32) for low, high in zip(*box, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    for depth in (shape.depth, body.lung_depth):
        points = points[depth(*points.T) > 0]
        if not len(points):
            return box
    return box_of(points.min(axis=0), points.max(axis=0))


def axial_size(box: Box) -> float:
    """Larger axial side of a box in whole millimetres."""
    (ax, ay, _), (bx, by, _) = box
    return float(round(max(bx - ax, by - ay)))


def draw_sides(rng: np.random.Generator, both: float) -> tuple[Side, ...]:
    """Both sides, with that probability, or one."""
    if rng.random() < both:
        return SIDES
    return (draw_side(rng),)


def draw_side(rng: np.random.Generator) -> Side:
    """One side; findings are a little more often on the right, the larger lung."""
    return "right" if rng.random() < 0.55 else "left"


def draw_lobe(rng: np.random.Generator, side: Side, weights: Sequence[Number] = (3, 1, 4)) -> Lobe:
    """A lobe of a side, by weights of upper, middle and lower; the left has no middle lobe."""
    lobes: tuple[Lobe, ...] = ("upper lobe", "middle lobe", "lower lobe")
    share = np.array(weights, dtype=float)
    if side == "left":
        share[1] = 0
    return lobes[int(rng.choice(3, p=share / share.sum()))]


def millimetres(
    rng: np.random.Generator, median: Number, spread: float, low: Number, high: Number
) -> float:
    """A whole number of millimetres from a log-normal, kept in a range."""
    return float(round(float(np.clip(rng.lognormal(np.log(median), spread), low, high))))
