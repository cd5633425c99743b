"""A volume → the frames a model sees, with where each of them lies.

In: a `CTVolume` in RAS orientation, padding already air. Out: uint8 [slices, height, width, 3],
anterior up, the patient's right on the left, most cranial slice first; and `PreparedVolume`.
Axes change here and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, final

import numpy as np
from jaxtyping import Real, UInt8

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.base.types import Projection, SpacingMm, Windows
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.lungs import find_lungs, spread_slices
from ctscribe.scan.resample import Resampling, plan_resampling
from ctscribe.scan.slabs import reach_of_slabs, slab_spans
from ctscribe.scan.types import Affine, Frames
from ctscribe.scan.volume import CTVolume

_TOKEN_SIDE_PX = SlicesConfig().token_side_px
"""Side of the square that a visual token covers; the sides of frames are multiples of it."""


@final
@dataclass(frozen=True, slots=True)
class Window:
    """A linear grey scale: black at and below one density, white at and above another."""

    name: str
    center_hu: float
    width_hu: float


_WIDE = Window("wide", 0.0, 2000.0)
_SOFT_TISSUE = Window("soft tissue", 40.0, 400.0)
_LUNG = Window("lung", -700.0, 600.0)
WINDOWS: dict[Windows, tuple[Window, ...]] = {
    "single": (_WIDE,),
    "three": (_WIDE, _SOFT_TISSUE, _LUNG),
}
"""single: [−1000, 1000] HU (the paper's Eq. 3); three: one window per colour channel, which
lets a tower without biases tell uniform densities apart."""


@final
@dataclass(frozen=True)
class PreparedVolume:
    """One volume's frames, and where they come from.

    Attributes:
        resampling: The volume on the recipe's grid, RAS; its slices are computed on request.
        shown: HU of the frames' slices, in the frames' order and pixel size.
        frames: uint8 [slices, height, width, 3].
        slice_indices: z index of each frame, most cranial first.
        position_mm: Superior coordinate of the centre of each of these slices, RAS+.
        frame_to_ras: 4 × 4, (column px, row px, z index, 1) → RAS+ mm.
        warnings: Codes; ``W_NOT_CHEST`` when no lungs were found.
        slabs: HU of the maximum around each slice, on the grid of ``shown``; None without slabs.
        reach_z: See `StudyRow`; empty without slabs.
        source_details: How the source was read, for the volume's record; see `Notes`.
    """

    resampling: Resampling
    shown: CTVolume
    frames: Frames
    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    frame_to_ras: Affine
    warnings: tuple[str, ...]
    slabs: CTVolume | None = None
    reach_z: tuple[tuple[float, float], ...] = ()
    source_details: dict[str, Any] = field(default_factory=dict)


def frames_of_lungs(source: CTVolume, volume: VolumeConfig, slices: SlicesConfig) -> PreparedVolume:
    """Spreads slices over the lungs and makes frames of them on the recipe's grid.

    The lungs are located in the source volume, and only the slices that are shown are resampled.
    If the frames would take more visual tokens than the budget, they show the same slices and field
    of view with larger pixels.

    Args:
        source: In RAS orientation, padding already air.
        volume: Spacing of the grid, and whether it averages.
        slices: How many slices, in which windows, on how large frames, with or without slabs.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES``.
    """
    lungs = find_lungs(source)
    grid = plan_resampling(source, volume.spacing_mm, antialias=volume.antialias)
    depth = grid.shape_xyz[2]
    scale = depth / source.shape_xyz[2]
    first, last = (min(depth - 1, int((z + 0.5) * scale)) for z in (lungs.first, lungs.last))
    indices = spread_slices((first, last), slices.num_slices, depth)
    shown, slabs, reach_z = slices_of(grid, indices, volume, slices)
    every, windows = range(slices.num_slices), WINDOWS[slices.windows]
    _, size_px = frame_sizes(*grid.shape_xyz[:2], slices)
    frames, frame_to_ras = make_frames(shown, every, windows, size_px)
    if slabs is not None:
        frames[..., 0] = make_frames(slabs, every, windows[:1], size_px)[0][..., 0]
    return PreparedVolume(
        resampling=grid,
        shown=shown,
        frames=frames,
        slice_indices=indices,
        position_mm=_positions_mm(grid, indices),
        frame_to_ras=frame_to_ras,
        warnings=() if lungs.found else ("W_NOT_CHEST",),
        slabs=slabs,
        reach_z=reach_z,
    )


def slices_of(
    grid: Resampling, indices: tuple[int, ...], volume: VolumeConfig, slices: SlicesConfig
) -> tuple[CTVolume, CTVolume | None, tuple[tuple[float, float], ...]]:
    """HU of some slices of a grid and of slabs around them, in the pixel size of the frames.

    Args:
        grid: The volume on the recipe's grid.
        indices: z indices, most cranial first.
        volume: Spacing of the grid.
        slices: Size of the frames, and whether they show slabs.

    Returns:
        ``shown``, ``slabs`` and ``reach_z`` of `PreparedVolume`.
    """
    width, height, _ = grid.shape_xyz
    full_px, size_px = frame_sizes(width, height, slices)
    seen = grid if size_px == full_px else _coarser(grid, volume.spacing_mm, full_px, size_px)
    shown = CTVolume(seen.stack(indices), seen.affine)
    if slices.projection != "slab":
        return shown, None, ()
    spans = slab_spans(grid, indices, slices.slab_mm)
    slabs = CTVolume(seen.project(spans), seen.affine)
    return shown, slabs, reach_of_slabs(grid, indices, spans)


def make_frames(
    volume: CTVolume,
    slice_indices: Sequence[int],
    windows: Sequence[Window],
    frame_size_px: tuple[int, int] | None = None,
) -> tuple[Frames, Affine]:
    """Makes frames of axial slices, oriented as a radiologist sees them.

    Args:
        volume: In RAS orientation.
        slice_indices: z indices in the order wanted.
        windows: One window for all three colour channels, or three, one per channel.
        frame_size_px: (height, width), reached by centred cropping or padding with air; None pads
            to the next multiples of 28.

    Returns:
        The frames, and the 4 × 4 matrix (column px, row px, z index, 1) → RAS+ mm.
    """
    width, height, _ = volume.shape_xyz
    size = frame_size_px or (_next_multiple(height), _next_multiple(width))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    seen = np.full((len(slice_indices), *size), AIR_HU, dtype=volume.hu.dtype)
    rows, columns = _overlap(size[0], height, top), _overlap(size[1], width, left)
    for frame, z in zip(seen, slice_indices, strict=True):
        image = volume.hu[::-1, ::-1, z].T
        frame[rows[0], columns[0]] = image[rows[1], columns[1]]
    to_voxel = np.array(
        [
            [-1.0, 0.0, 0.0, width - 1 + left],
            [0.0, -1.0, 0.0, height - 1 + top],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    return _through_windows(seen, windows), volume.affine @ to_voxel


def noise_frames(
    seed: int,
    num_slices: int,
    frame_size_px: tuple[int, int],
    windows: Sequence[Window],
    projection: Projection = "none",
) -> Frames:
    """Frames of a volume of standard normal noise in units of 1000 HU, clipped to ±1 (Eq. 3).

    Every window shows the same noise. A slab is the maximum of both slices of a pair. The same
    arguments give the same frames.
    """
    draw = np.random.default_rng(seed).standard_normal
    noise = draw((num_slices, *frame_size_px), dtype=np.float32)
    hu = np.clip(noise, -1, 1) * np.float32(1000)
    frames = _through_windows(hu, windows)
    if projection == "slab":
        highest = np.maximum(hu[::2], hu[1::2])
        frames[..., 0] = _through_windows(highest, windows[:1])[..., 0].repeat(2, axis=0)
    return frames


def air_frames(
    num_slices: int, frame_size_px: tuple[int, int], windows: Sequence[Window]
) -> Frames:
    """Frames of a volume that holds nothing but air."""
    return _through_windows(np.full((num_slices, *frame_size_px), AIR_HU, np.float32), windows)


def apply_window(hu: Real[np.ndarray, "*shape"], window: Window) -> UInt8[np.ndarray, "*shape"]:
    """Maps HU to 0…255, rounded to the nearest."""
    black_hu = window.center_hu - window.width_hu / 2
    grey = (hu - np.float32(black_hu)) * np.float32(255 / window.width_hu)
    shades: UInt8[np.ndarray, "*shape"] = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    return shades


def frame_sizes(
    width: int, height: int, slices: SlicesConfig
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of frames at the grid's pixel size, and within the token budget.

    The former is ``frame_size_px``, or the next multiples of a visual token's side.
    """
    side = slices.token_side_px
    full = slices.frame_size_px or (_next_multiple(height, side), _next_multiple(width, side))
    return full, coarse_size(full, slices.num_slices, slices.token_budget, side)


def coarse_size(
    frame_size_px: tuple[int, int],
    num_slices: int,
    token_budget: int | None,
    token_side_px: int = _TOKEN_SIDE_PX,
) -> tuple[int, int]:
    """(height, width) of the largest frames of the same aspect within a budget of visual tokens.

    Args:
        frame_size_px: (height, width) of the frames on the grid, multiples of a token's side.
        num_slices: Number of frames; each pair of them makes one layer of tokens.
        token_budget: Most visual tokens of all frames together, at least one per pair; None leaves
            the frames as they are.
        token_side_px: Side of a token.
    """
    rows, columns = (side // token_side_px for side in frame_size_px)
    if token_budget is None:
        return frame_size_px
    per_pair = token_budget // (num_slices // 2)
    if rows * columns <= per_pair:
        return frame_size_px
    sizes = {(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)}
    sizes |= {(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)}
    height, width = max(((1, 1), *(s for s in sorted(sizes) if prod(s) <= per_pair)), key=prod)
    return height * token_side_px, width * token_side_px


def _through_windows(hu: np.ndarray, windows: Sequence[Window]) -> Frames:
    """HU [slices, height, width] → frames; one at a time, so that temporary arrays are small."""
    frames = np.empty((*hu.shape, 3), dtype=np.uint8)
    for frame, plane in zip(frames, hu, strict=True):
        shades = [apply_window(plane, window) for window in windows]
        for channel in range(3):
            frame[..., channel] = shades[channel % len(shades)]
    return frames


def _coarser(
    grid: Resampling, spacing_mm: SpacingMm, full_px: tuple[int, int], size_px: tuple[int, int]
) -> Resampling:
    """The grid with larger pixels, so that frames of ``size_px`` show what ``full_px`` would.

    Source pixels are averaged in the plane; the slices along z stay the same.
    """
    factor = max(full / side for full, side in zip(full_px, size_px, strict=True))
    x, y, z = spacing_mm
    coarse = plan_resampling(grid.source, (x * factor, y * factor, z), antialias=True)
    return replace(coarse, taps_xyz=(*coarse.taps_xyz[:2], grid.taps_xyz[2]))


def _positions_mm(grid: Resampling, indices: Sequence[int]) -> tuple[float, ...]:
    width, height, _ = grid.shape_xyz
    centres = np.array([[(width - 1) / 2, (height - 1) / 2, z, 1.0] for z in indices])
    return tuple(float(mm) for mm in (centres @ grid.affine.T)[:, 2])


def _next_multiple(side_px: int, token_side_px: int = _TOKEN_SIDE_PX) -> int:
    return -(-side_px // token_side_px) * token_side_px


def _overlap(target: int, source: int, offset: int) -> tuple[slice, slice]:
    """Where an image of `source` px, shifted by `offset`, meets a frame of `target` px."""
    start, stop = max(0, offset), min(target, offset + source)
    return slice(start, stop), slice(start - offset, stop - offset)
