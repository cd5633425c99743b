"""What all HTML pages share: one style sheet and all images inside, no script, nothing fetched.

In: a template of this package and its values, volumes and images. Out: HTML, and slices drawn to
scale in it.
"""

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import final

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ctscribe import RESEARCH_USE, __version__
from ctscribe.scan.frames import Window, make_frames
from ctscribe.scan.volume import CTVolume

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but white space
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction overrides, invisible signs
    "\ud800-\udfff\ufffe\uffff]"  # halves of surrogate pairs, non-characters
)

READING_WINDOWS = (Window("lung", -600.0, 1500.0), Window("soft tissue", 40.0, 400.0))
"""What a page shows, whatever the model saw; the first is shown first."""


def render(template: str, **context: object) -> str:
    """Renders a template of this package; every text is escaped and made printable.

    The style sheet is the only one the page's content security policy admits, by its hash.
    """
    style = files(__package__).joinpath("templates", "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup(style),
            style_hash=Markup(f"sha256-{digest}"),
            research_use=RESEARCH_USE,
            version=__version__,
        )
    )


def printable(text: str) -> str:
    """Shows characters that control, hide or reorder text, e.g. as ``⟨U+202E⟩``."""
    return _UNPRINTABLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def signed_mm(value: float) -> str:
    """A coordinate in mm with one decimal and a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


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


def png_uri(content: bytes) -> str:
    """A PNG file's bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def grey_uri(image: UInt8[np.ndarray, "height width"]) -> str:
    """A grey image as a lossless PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return png_uri(buffer.getvalue())


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
    scale_bar_mm: int = 50


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


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ctscribe.show"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["mm"] = signed_mm
    return environment


def _finalize(value: object) -> object:
    return printable(value) if type(value) is str else value
