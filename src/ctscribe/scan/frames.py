"""Slices → frames: anterior up, the patient's right on the left, the head first."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, final

import numpy as np
from jaxtyping import Real, UInt8

from ctscribe.base.types import Affine, Frames
from ctscribe.scan.volume import CTVolume


@final
@dataclass(frozen=True, slots=True)
class Window:
    """A linear grey scale, as on a reading station."""

    name: str
    center_hu: float
    width_hu: float

    @property
    def lower_hu(self) -> float:
        """Black at and below."""
        return self.center_hu - self.width_hu / 2

    @property
    def upper_hu(self) -> float:
        """White at and above."""
        return self.center_hu + self.width_hu / 2


_WIDE = Window("wide", 0.0, 2000.0)
_SOFT_TISSUE = Window("soft tissue", 40.0, 400.0)
_LUNG = Window("lung", -700.0, 600.0)

WINDOWS: dict[Literal["single", "three"], tuple[Window, ...]] = {
    "single": (_WIDE,),
    "three": (_WIDE, _SOFT_TISSUE, _LUNG),
}
"""single: [−1000, 1000] HU (the paper's Eq. 3); three: one window per colour channel, which
lets a tower without biases tell uniform densities apart."""


def apply_window(hu: Real[np.ndarray, "*shape"], window: Window) -> UInt8[np.ndarray, "*shape"]:
    """Maps HU to 0…255, rounded to the nearest."""
    grey = (hu - np.float32(window.lower_hu)) * np.float32(255 / window.width_hu)
    shades: UInt8[np.ndarray, "*shape"] = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    return shades


TOKEN_SIDE_PX = 28
"""One visual token covers 28 × 28 px; frames have sides that are multiples of it."""
AIR_HU = -1024


def make_frames(
    volume: CTVolume,
    slice_indices: Sequence[int],
    windows: Sequence[Window],
    frame_size_px: tuple[int, int] | None = None,
) -> tuple[Frames, Affine]:
    """Shows axial slices as a radiologist sees them.

    Args:
        volume: In RAS orientation.
        slice_indices: z indices in the order wanted.
        windows: One window for all three colour channels, or three, one per channel.
        frame_size_px: (height, width), multiples of 28, reached by centred cropping or padding
            with air; None pads to the next multiples of 28.

    Returns:
        The frames, and the 4 × 4 matrix (column px, row px, z index, 1) → RAS+ mm.
    """
    width, height, _ = volume.shape_xyz
    size = frame_size(width, height, frame_size_px)
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


def frame_size(width: int, height: int, frame_size_px: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of a volume's frames: as wanted, or the next multiples of 28."""
    return frame_size_px or (_next_multiple(height), _next_multiple(width))


def coarse_size(
    frame_size_px: tuple[int, int], num_slices: int, token_budget: int | None
) -> tuple[int, int]:
    """(height, width) of the largest frames of like aspect that a budget of visual tokens allows.

    Args:
        frame_size_px: (height, width) of the frames on the grid, multiples of 28.
        num_slices: Two of them make one layer of tokens.
        token_budget: Visual tokens that all frames may take together, at least one a pair; None
            leaves the frames as they are.
    """
    rows, columns = (side // TOKEN_SIDE_PX for side in frame_size_px)
    a_pair = rows * columns if token_budget is None else token_budget // (num_slices // 2)
    if rows * columns <= a_pair:
        return frame_size_px
    sizes = {(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)}
    sizes |= {(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)}
    height, width = max(((1, 1), *(s for s in sorted(sizes) if prod(s) <= a_pair)), key=prod)
    return height * TOKEN_SIDE_PX, width * TOKEN_SIDE_PX


def noise_frames(
    seed: int, num_slices: int, frame_size_px: tuple[int, int], windows: Sequence[Window]
) -> Frames:
    """Frames of a volume of standard normal noise in units of 1000 HU, clipped to ±1 (Eq. 3).

    Each window shows the same noise. The same arguments give the same frames.
    """
    draw = np.random.default_rng(seed).standard_normal
    noise = draw((num_slices, *frame_size_px), dtype=np.float32)
    return _through_windows(np.clip(noise, -1, 1) * np.float32(1000), windows)


def air_frames(
    num_slices: int, frame_size_px: tuple[int, int], windows: Sequence[Window]
) -> Frames:
    """Frames of a volume that holds nothing but air."""
    return _through_windows(np.full((num_slices, *frame_size_px), AIR_HU, np.float32), windows)


def _through_windows(hu: np.ndarray, windows: Sequence[Window]) -> Frames:
    """Frame by frame, so that what lies between stays small."""
    frames = np.empty((*hu.shape, 3), dtype=np.uint8)
    for frame, plane in zip(frames, hu, strict=True):
        shades = [apply_window(plane, window) for window in windows]
        for channel in range(3):
            frame[..., channel] = shades[channel % len(shades)]
    return frames


def _next_multiple(side_px: int) -> int:
    return -(-side_px // TOKEN_SIDE_PX) * TOKEN_SIDE_PX


def _overlap(target: int, source: int, offset: int) -> tuple[slice, slice]:
    """Where an image of `source` px, shifted by `offset`, meets a frame of `target` px."""
    start, stop = max(0, offset), min(target, offset + source)
    return slice(start, stop), slice(start - offset, stop - offset)
