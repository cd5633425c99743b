"""What a second look adds to a volume's frames: crops of the full ones, and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.second_look.choose import Crop
from ctscribe.slices.show import FullFrames, PreparedVolume
from ctscribe.types import Affine, Frames


@final
@dataclass(frozen=True)
class ShownFrames:
    """What a model is shown of one volume.

    Attributes:
        frames: uint8 [slices, height, width, 3]: whole slices, then both slices of each crop.
        slice_indices: z index of each frame.
        position_mm: Superior coordinate of each frame, RAS+.
        frame_to_ras: 4 × 4, (column px, row px, z index, 1) of a whole slice → RAS+ mm.
        crops: In the order of their frames.
        crop_to_ras: The same matrix of each crop.
    """

    frames: Frames
    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    frame_to_ras: Affine
    crops: tuple[Crop, ...] = ()
    crop_to_ras: tuple[Affine, ...] = ()


def first_look(prepared: PreparedVolume) -> ShownFrames:
    """A prepared volume's whole slices."""
    return ShownFrames(
        prepared.frames, prepared.slice_indices, prepared.position_mm, prepared.frame_to_ras
    )


def with_crops(
    first: ShownFrames, fine: tuple[FullFrames, Affine], crops: Sequence[Crop]
) -> ShownFrames:
    """Puts crops behind the whole slices.

    Args:
        first: Whole slices alone.
        fine: The same slices at full resolution, and their 4 × 4 matrix.
        crops: At least one.
    """
    full, fine_to_ras = fine
    height, width = first.frames.shape[1:3]
    members = [2 * crop.pair + side for crop in crops for side in (0, 1)]
    return replace(
        first,
        frames=np.concatenate([first.frames, cut(full, crops, (height, width))]),
        slice_indices=(*first.slice_indices, *(first.slice_indices[m] for m in members)),
        position_mm=(*first.position_mm, *(first.position_mm[m] for m in members)),
        crops=tuple(crops),
        crop_to_ras=tuple(_shifted(fine_to_ras, crop) for crop in crops),
    )


def cut(
    full: UInt8[np.ndarray, "slices full_height full_width *channels"],
    crops: Sequence[Crop],
    size_px: tuple[int, int],
) -> UInt8[np.ndarray, "cut height width *channels"]:
    """Both slices of each crop's pair, cut to (height, width)."""
    height, width = size_px
    return np.concatenate(
        [
            full[2 * c.pair : 2 * c.pair + 2, c.top : c.top + height, c.left : c.left + width]
            for c in crops
        ]
    )


def _shifted(fine_to_ras: Affine, crop: Crop) -> Affine:
    shift = np.eye(4)
    shift[:2, 3] = crop.left, crop.top
    return np.asarray(fine_to_ras @ shift)
