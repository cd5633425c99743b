"""A volume → the frames of its lungs, with where each of them lies."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from ctscribe.base.types import Affine, Frames, SpacingMm
from ctscribe.scan.frames import Window, coarse_size, frame_size, make_frames
from ctscribe.scan.lungs import find_lungs, spread_slices
from ctscribe.scan.resample import Resampling, plan
from ctscribe.scan.volume import CTVolume


@final
@dataclass(frozen=True)
class PreparedVolume:
    """One volume, ready for the model.

    Attributes:
        resampling: The volume on the recipe's grid, RAS, computed slice by slice on request.
        shown: The slices of the frames, in their order and with their pixels, HU.
        frames: uint8 [slices, height, width, 3].
        slice_indices: z index of each frame, most cranial first.
        position_mm: Superior coordinate of the centre of each of these slices, RAS+.
        frame_to_ras: 4 × 4, (column px, row px, z index, 1) → RAS+ mm.
        warnings: Codes; ``W_NOT_CHEST`` when no lungs were found.
        source_details: What the record says of how the source was read; see `Notes`.
    """

    resampling: Resampling
    shown: CTVolume
    frames: Frames
    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    frame_to_ras: Affine
    warnings: tuple[str, ...]
    source_details: dict[str, Any] = field(default_factory=dict)


def show_lungs(
    source: CTVolume,
    *,
    spacing_mm: SpacingMm,
    num_slices: int,
    windows: Sequence[Window],
    frame_size_px: tuple[int, int] | None = None,
    antialias: bool = False,
    token_budget: int | None = None,
) -> PreparedVolume:
    """Chooses slices over the lungs' extent and shows them on the recipe's grid.

    The lungs are sought on the volume as it was scanned; only the slices that are shown are
    resampled. Frames that would take more visual tokens than the budget show the same field of
    view with larger pixels; which slices they show stays the same.

    Args:
        source: In RAS orientation, padding already air.
        spacing_mm: Of the grid, (x, y, z).
        num_slices: Frames wanted.
        windows: See `make_frames`.
        frame_size_px: See `make_frames`.
        antialias: See `plan`.
        token_budget: See `coarse_size`.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES``.
    """
    lungs = find_lungs(source)
    resampling = plan(source, spacing_mm, antialias=antialias)
    width, height, depth = resampling.shape_xyz
    scale = depth / source.shape_xyz[2]
    first, last = (min(depth - 1, int((z + 0.5) * scale)) for z in (lungs.first, lungs.last))
    indices = spread_slices((first, last), num_slices, depth)
    full_px = frame_size(width, height, frame_size_px)
    size_px = coarse_size(full_px, num_slices, token_budget)
    seen = resampling if size_px == full_px else _coarser(resampling, spacing_mm, full_px, size_px)
    shown = CTVolume(seen.stack(indices), seen.affine)
    frames, frame_to_ras = make_frames(shown, range(num_slices), windows, size_px)
    position_mm = _positions_mm(resampling, indices)
    warnings = () if lungs.found else ("W_NOT_CHEST",)
    return PreparedVolume(resampling, shown, frames, indices, position_mm, frame_to_ras, warnings)


def _coarser(
    grid: Resampling, spacing_mm: SpacingMm, full_px: tuple[int, int], size_px: tuple[int, int]
) -> Resampling:
    """The grid with pixels so large that frames of the smaller size show what full ones would.

    Pixels are averages; along z the slices are the grid's own.
    """
    factor = max(full / side for full, side in zip(full_px, size_px, strict=True))
    x, y, z = spacing_mm
    coarse = plan(grid.source, (x * factor, y * factor, z), antialias=True)
    return replace(coarse, taps_xyz=(*coarse.taps_xyz[:2], grid.taps_xyz[2]))


def _positions_mm(grid: Resampling, indices: Sequence[int]) -> tuple[float, ...]:
    width, height, _ = grid.shape_xyz
    centres = np.array([[(width - 1) / 2, (height - 1) / 2, z, 1.0] for z in indices])
    return tuple(float(mm) for mm in (centres @ grid.affine.T)[:, 2])
