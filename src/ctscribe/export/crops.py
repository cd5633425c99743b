"""What a model was shown, as a reader looks at it: whole slices, and crops of a second look."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from ctscribe.export.display import draw_slices
from ctscribe.export.report import SliceCrop
from ctscribe.second_look.cut import ShownFrames, cut
from ctscribe.slices.show import PreparedVolume
from ctscribe.volume.ct import CTVolume


def place_crops(prepared: PreparedVolume, shown: ShownFrames) -> tuple[SliceCrop, ...]:
    """Where each slice of each crop lies, in the order of its frames.

    Args:
        prepared: The scan.
        shown: Its frames.
    """
    height, width = shown.frames.shape[1:3]
    across, down, _ = prepared.shown.spacing_mm
    fine_across, fine_down, _ = prepared.resampling.spacing_mm
    to_frame = np.linalg.inv(shown.frame_to_ras)
    found = []
    for crop, crop_to_ras in zip(shown.crops, shown.crop_to_ras, strict=True):
        # pixel centres are whole numbers, so that the upper left corner is at (−½, −½)
        left, top = (to_frame @ crop_to_ras @ [-0.5, -0.5, 0, 1])[:2]
        box = (left + 0.5) * across, (top + 0.5) * down, width * fine_across, height * fine_down
        for number in (2 * crop.pair + 1, 2 * crop.pair + 2):
            z = shown.slice_indices[number - 1]
            centre = (crop_to_ras @ [(width - 1) / 2, (height - 1) / 2, z, 1])[:3]
            found.append(
                SliceCrop(
                    number,
                    (float(box[0]), float(box[1]), box[2], box[3]),
                    (float(centre[0]), float(centre[1]), float(centre[2])),
                    (fine_across, fine_down),
                )
            )
    return tuple(found)


def draw_frames(
    prepared: PreparedVolume, shown: ShownFrames
) -> dict[str, UInt8[np.ndarray, "slices height width"]]:
    """Draws all that the model was shown in the reading windows, crops behind whole slices.

    Args:
        prepared: The scan.
        shown: Its frames.
    """
    height, width = shown.frames.shape[1:3]
    num_crops = 2 * len(shown.crops)
    num_whole = len(shown.frames) - num_crops
    whole = draw_slices(prepared.shown, range(num_whole), (height, width))
    if prepared.fine is None or not num_crops:
        return whole
    full_height, full_width = prepared.fine[0].shape[1:3]
    grid = prepared.resampling
    again = CTVolume(grid.stack(shown.slice_indices[num_whole:]), grid.affine)
    full = draw_slices(again, range(num_crops), (full_height, full_width))
    crops = [replace(crop, pair=pair) for pair, crop in enumerate(shown.crops)]
    return {
        window: np.concatenate([whole[window], cut(images, crops, (height, width))])
        for window, images in full.items()
    }
