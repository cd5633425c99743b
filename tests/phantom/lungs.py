"""A cube of lung to paint into, and how much was painted."""

import numpy as np

from ctscribe.phantom.canvas import Canvas
from ctscribe.phantom.grid import VoxelGrid


def grid_of(spacing: tuple[float, float, float], roll: float = 0.0) -> VoxelGrid:
    sx, sy, sz = spacing
    shape = (round(80 / sz), round(80 / sy), round(80 / sx))
    origin = (40.0 - sx / 2, 40.0 - sy / 2, -40.0 + sz / 2)
    return VoxelGrid(shape, spacing, origin, roll, (0.0, 0.0, 0.0), sx)


def filled_lung(grid: VoxelGrid) -> Canvas:
    canvas = Canvas.of_air(grid)
    canvas.hu[:] = -850
    canvas.lung[:] = 1
    return canvas


def volume_of(canvas: Canvas, before: float, after: float) -> float:
    share = (canvas.hu.astype(np.float64) - before) / (after - before)
    return float(share.sum() * np.prod(canvas.grid.spacing_mm))
