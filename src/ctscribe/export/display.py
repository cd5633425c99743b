"""Slices as a reader looks at them: in the windows of a reading station."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from ctscribe.slices.frames import make_frames
from ctscribe.slices.windows import Window
from ctscribe.volume.ct import CTVolume

READING_WINDOWS = (Window("lung", -600.0, 1500.0), Window("soft tissue", 40.0, 400.0))
"""What a page shows, whatever the model saw; the first is shown first."""


def window_title(window: Window) -> str:
    """Name, centre and width in HU, e.g. ``lung −600/1500``."""
    return f"{window.name} {window.center_hu:g}/{window.width_hu:g}".replace("-", "−")


def draw_slices(
    volume: CTVolume,
    slice_indices: Sequence[int],
    frame_size_px: tuple[int, int] | None = None,
) -> dict[str, UInt8[np.ndarray, "slices height width"]]:
    """Draws axial slices in each of `READING_WINDOWS`, on the grid of the model's frames.

    Args:
        volume: In RAS orientation.
        slice_indices: z indices in the order wanted.
        frame_size_px: As for `make_frames`.
    """
    return {
        window_title(window): make_frames(volume, slice_indices, (window,), frame_size_px)[0][
            ..., 0
        ]
        for window in READING_WINDOWS
    }
