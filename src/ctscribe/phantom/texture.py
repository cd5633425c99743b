"""Patterns that fill space: polygonal cells as of pulmonary lobules, and broad patches."""

import numpy as np

from ctscribe.phantom.grid import Field


def cell_walls(x: Field, y: Field, z: Field, cell_mm: float, seed: int) -> Field:
    """Distance in mm to the nearest wall between random polygonal cells (Worley's F2 − F1, halved).

    Args:
        x: Body mm; the three broadcast.
        y: Body mm.
        z: Body mm.
        cell_mm: Mean size of a cell.
        seed: Of the pattern.
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


def patches(x: Field, y: Field, z: Field, size_mm: float, phase: float) -> Field:
    """A smooth pattern in [−1, 1] of patches with fairly sharp borders."""
    k = np.float32(np.pi / size_mm)
    first = np.sin(k * x + 0.5 * np.sin(0.8 * k * y) + phase) * np.sin(k * y + 1.7 * phase)
    across = np.sin(0.7 * k * (x + y) + 2.3 * phase)
    up = np.sin(k * z + phase)
    return np.asarray(np.clip(2.2 * (first + across * up), -1, 1), np.float32)
