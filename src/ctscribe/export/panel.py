"""Slices on a page, drawn to scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.export.page import grey_uri

SCALE_BAR_MM = 50
_SHORT_BAR_MM = 10
"""Of what is less than two long ones wide."""

BoxOnSlice = tuple[float, float, float, float]
"""(left, top, width, height) in mm, from a slice's upper left corner."""


@final
@dataclass(frozen=True)
class ShownSlice:
    """A slice's place, and (window title, image as data URI) for each window.

    ``outlines`` are the parts of it that are shown elsewhere, larger.
    """

    number: int
    slice_index: int
    position_mm: float
    planes: tuple[tuple[str, str], ...]
    outlines: tuple[BoxOnSlice, ...] = ()


@final
@dataclass(frozen=True)
class SlicePanel:
    """Slices of one volume; ``anchor`` is the page's id to return to from an enlarged one.

    ``label`` is said of each slice.
    """

    anchor: str
    slices: tuple[ShownSlice, ...]
    width_mm: float
    height_mm: float
    scale_bar_mm: int = SCALE_BAR_MM
    label: str = ""


def slice_panel(
    anchor: str,
    display: Mapping[str, UInt8[np.ndarray, "slices height width"]],
    slice_indices: Sequence[int],
    position_mm: Sequence[float],
    pixel_spacing_mm: tuple[float, float],
    *,
    first: int = 1,
    outlines: Mapping[int, tuple[BoxOnSlice, ...]] = {},
    label: str = "",
) -> SlicePanel:
    """Encodes slices for a page.

    Args:
        anchor: Id of the element that holds the panel.
        display: Window title to the slices drawn in it.
        slice_indices: z index of each slice.
        position_mm: Superior coordinate of each slice.
        pixel_spacing_mm: Size of a pixel along (columns, rows).
        first: Number of the first slice.
        outlines: Boxes to draw, by the slice's number.
        label: See `SlicePanel`.
    """
    height, width = next(iter(display.values())).shape[1:]
    drawn = [(title, [grey_uri(image) for image in images]) for title, images in display.items()]
    places = enumerate(zip(slice_indices, position_mm, strict=True))
    slices = tuple(
        ShownSlice(
            first + i,
            index,
            position,
            tuple((title, uris[i]) for title, uris in drawn),
            outlines.get(first + i, ()),
        )
        for i, (index, position) in places
    )
    width_mm, height_mm = width * pixel_spacing_mm[0], height * pixel_spacing_mm[1]
    bar = SCALE_BAR_MM if width_mm >= 2 * SCALE_BAR_MM else _SHORT_BAR_MM
    return SlicePanel(anchor, slices, width_mm, height_mm, bar, label)
