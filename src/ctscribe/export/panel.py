"""Slices on a page, drawn to scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.export.page import grey_uri

SCALE_BAR_MM = 50


@final
@dataclass(frozen=True)
class ShownSlice:
    """A slice's place, and (window title, image as data URI) for each window."""

    number: int
    slice_index: int
    position_mm: float
    planes: tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True)
class SlicePanel:
    """Slices of one volume; ``anchor`` is the page's id to return to from an enlarged one."""

    anchor: str
    slices: tuple[ShownSlice, ...]
    width_mm: float
    height_mm: float
    scale_bar_mm: int = SCALE_BAR_MM


def slice_panel(
    anchor: str,
    display: Mapping[str, UInt8[np.ndarray, "slices height width"]],
    slice_indices: Sequence[int],
    position_mm: Sequence[float],
    pixel_spacing_mm: tuple[float, float],
) -> SlicePanel:
    """Encodes slices for a page.

    Args:
        anchor: Id of the element that holds the panel.
        display: Window title to the slices drawn in it.
        slice_indices: z index of each slice.
        position_mm: Superior coordinate of each slice.
        pixel_spacing_mm: Size of a pixel along (columns, rows).
    """
    height, width = next(iter(display.values())).shape[1:]
    drawn = [(title, [grey_uri(image) for image in images]) for title, images in display.items()]
    places = enumerate(zip(slice_indices, position_mm, strict=True))
    slices = tuple(
        ShownSlice(i + 1, index, position, tuple((title, uris[i]) for title, uris in drawn))
        for i, (index, position) in places
    )
    return SlicePanel(anchor, slices, width * pixel_spacing_mm[0], height * pixel_spacing_mm[1])
