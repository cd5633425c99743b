"""Solids → voxels: a volume of Hounsfield units, and strokes painted into it one after another.

In: a `VoxelGrid` and `Stroke`s. Out: a `Canvas`; each stroke changes only the box of its solid.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, final

import numpy as np

from ctscribe.phantom.grid import Block, Field, Number, VoxelGrid
from ctscribe.phantom.shapes import Shape

AIR_HU = -1000.0
CHUNK_VOXELS = 1 << 18


@final
@dataclass(frozen=True)
class Stroke:
    """A solid and the densities painted for it.

    Args:
        layers: (depth in mm, HU) from the surface inwards; the first is at the surface, depth 0.
        space: any: paints everywhere; organ: as any, and marks the place as no longer lung; lung:
            paints only where there is lung.
        adds: Adds the first layer's HU to the volume instead of replacing it.
        soft_mm: Width of the border of blurred objects, such as ground glass.
    """

    shape: Shape
    layers: tuple[tuple[Number, Number], ...]
    space: Literal["any", "organ", "lung"] = "any"
    adds: bool = False
    soft_mm: Number = 0.0


@final
@dataclass(frozen=True)
class Canvas:
    """A volume being painted.

    Args:
        grid: The voxel grid.
        hu: Hounsfield units, [z, y, x].
        lung: Share of each voxel that is aerated lung, [z, y, x].
        scratch: Zeros of the same shape; whoever writes to it must zero it again.
    """

    grid: VoxelGrid
    hu: Field = field(repr=False)
    lung: Field = field(repr=False)
    scratch: Field = field(repr=False)

    @classmethod
    def of_air(cls, grid: VoxelGrid) -> "Canvas":
        """A canvas that is filled with air."""
        air = np.full(grid.shape_zyx, AIR_HU, dtype=np.float32)
        lung, scratch = np.zeros((2, *grid.shape_zyx), dtype=np.float32)
        return cls(grid, air, lung, scratch)


def paint(canvas: Canvas, strokes: Iterable[Stroke]) -> None:
    """Paints strokes in order."""
    for stroke in strokes:
        low, high = stroke.shape.bounds()
        soft = stroke.soft_mm / 2
        low = (low[0] - soft, low[1] - soft, low[2] - soft)
        high = (high[0] + soft, high[1] + soft, high[2] + soft)
        block = canvas.grid.block(low, high)
        for part in chunks(block) if block else ():
            _paint_part(canvas, stroke, part)


def chunks(block: Block) -> Iterator[Block]:
    """Cuts a block into runs of slices small enough for the processor's cache."""
    z, y, x = block
    step = max(1, CHUNK_VOXELS // max(1, (y.stop - y.start) * (x.stop - x.start)))
    for start in range(z.start, z.stop, step):
        yield slice(start, min(start + step, z.stop)), y, x


def coordinates(grid: VoxelGrid, block: Block) -> tuple[Field, Field, Field]:
    """Body x, y [1, rows, columns] and z [slices, 1, 1] of a block, in mm."""
    along, across = grid.plane
    z, y, x = block
    return along[:, y, x], across[:, y, x], grid.levels[z][:, None, None]


def ramp(depth: Field, width_mm: float) -> Field:
    """Share of a voxel inside a solid, from the depth of its centre; overwrites ``depth``."""
    depth *= np.float32(1 / width_mm)
    depth += np.float32(0.5)
    return np.clip(depth, 0, 1, out=depth)


def blend(hu: Field, weight: Field, value: Field | np.float32) -> None:
    """Moves ``hu`` in place towards ``value`` by the share ``weight``."""
    change = value - hu
    change *= weight
    hu += change


def _paint_part(canvas: Canvas, stroke: Stroke, part: Block) -> None:
    covers = _covers(canvas.grid, stroke, part)
    weight = covers[0]
    hu, lung = canvas.hu[part], canvas.lung[part]
    if stroke.space == "lung":
        weight = weight * lung
    if stroke.adds:
        hu += weight * np.float32(stroke.layers[0][1])
        return
    value: Field | np.float32 = np.float32(stroke.layers[0][1])
    for cover, (_, inner), (_, outer) in zip(
        covers[1:], stroke.layers[1:], stroke.layers, strict=False
    ):
        value = value + cover * np.float32(inner - outer)
    blend(hu, weight, value)
    if stroke.space == "organ":
        lung *= np.subtract(1, weight, out=weight)


def _covers(grid: VoxelGrid, stroke: Stroke, part: Block) -> list[Field]:
    """Share of each voxel inside each layer; slices thicker than the solid are supersampled."""
    x, y, z = coordinates(grid, part)
    slab = grid.spacing_mm[2]
    fine = int(np.clip(np.ceil(3 * slab / stroke.shape.thin_mm), 1, 5))
    if fine > 1:
        offsets = ((np.arange(fine) + 0.5) / fine - 0.5) * slab
        z = (z[:, 0, 0, None] + offsets.astype(np.float32)).reshape(-1, 1, 1)
    depth = stroke.shape.depth(x, y, z)
    width = float(max(grid.edge_mm, stroke.soft_mm))
    covers = []
    for number, (inset, _) in enumerate(stroke.layers, 1):
        last = number == len(stroke.layers)
        cover = ramp(depth - np.float32(inset) if inset or not last else depth, width)
        if fine > 1:
            cover = cover.reshape(-1, fine, *cover.shape[1:]).mean(axis=1)
        covers.append(cover)
    return covers
