"""Where to look again: crops around what the first pass finds likely and attends to."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from ctscribe.reports.findings import FINDINGS
from ctscribe.types import Affine

SMALL = ("Lung nodule", "Lymphadenopathy", "Coronary artery wall calcification")
"""Findings that pixels of a few millimetres may lose."""
_MEMBERS = [FINDINGS.index(name) for name in SMALL]


@final
@dataclass(frozen=True, order=True)
class Crop:
    """A window of a pair of slices, in pixels of its full frames."""

    pair: int
    top: int
    left: int


def choose_crops(
    attention: Float[np.ndarray, "18 pairs rows columns"],
    probability: Float[np.ndarray, "18"],
    coarse_px: tuple[int, int],
    full_px: tuple[int, int],
    full_from_coarse: Affine,
    count: int,
) -> tuple[Crop, ...]:
    """Chooses crops greedily: around the best cell that no crop of its pair shows yet.

    A cell's worth is Σ probability · attention over the small findings.

    Args:
        attention: Of each finding over the cells of the coarse frames.
        probability: Of each finding.
        coarse_px: (height, width) of the coarse frames, and of every crop.
        full_px: (height, width) of the full frames; at least those of the coarse ones.
        full_from_coarse: 4 × 4, (column px, row px, z index, 1) of coarse frames → of full ones.
        count: Crops wanted; at most as many as pairs, which always leave something to show.

    Returns:
        The crops in the order of their pairs.
    """
    worth = np.einsum("f,fprc->prc", probability[_MEMBERS], attention[_MEMBERS])
    cell_px = coarse_px[0] / worth.shape[1]
    rows = _mapped(np.arange(worth.shape[1]), cell_px, full_from_coarse, 1)
    columns = _mapped(np.arange(worth.shape[2]), cell_px, full_from_coarse, 0)
    crops = []
    for _ in range(count):
        pair, row, column = np.unravel_index(worth.argmax(), worth.shape)
        top = _start(float(rows[row]), coarse_px[0], full_px[0])
        left = _start(float(columns[column]), coarse_px[1], full_px[1])
        crops.append(Crop(int(pair), top, left))
        inside = _within(rows, top, coarse_px[0])[:, None] & _within(columns, left, coarse_px[1])
        inside[row, column] = True  # a cell of the margin that full frames lack is done too
        worth[pair][inside] = -1
    return tuple(sorted(crops))


def _mapped(
    cells: np.ndarray, cell_px: float, full_from_coarse: Affine, axis: int
) -> Float[np.ndarray, "cells"]:
    """Centres of cells along one axis, in pixels of the full frames."""
    centres = (cells + 0.5) * cell_px - 0.5
    return np.asarray(centres * full_from_coarse[axis, axis] + full_from_coarse[axis, 3])


def _start(centre_px: float, side_px: int, full_px: int) -> int:
    return int(np.clip(round(centre_px - (side_px - 1) / 2), 0, full_px - side_px))


def _within(centres: Float[np.ndarray, "cells"], start: int, side_px: int) -> np.ndarray:
    return np.asarray((centres >= start - 0.5) & (centres < start + side_px - 0.5))
