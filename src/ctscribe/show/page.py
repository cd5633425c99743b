"""What all HTML pages share: one style sheet and all images inside, nothing fetched.

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

from ctscribe.base.about import RESEARCH_USE, __version__
from ctscribe.scan.frames import Window, make_frames
from ctscribe.scan.volume import CTVolume

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but white space
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction overrides, invisible signs
    "\ud800-\udfff\ufffe\uffff]"  # halves of surrogate pairs, non-characters
)

READING_WINDOWS = (Window("lung", -600.0, 1500.0), Window("soft tissue", 40.0, 400.0))
"""What a page shows, whatever the model saw; the first is shown first."""


def render(template: str, script: str | None = None, **context: object) -> str:
    """Renders a template of this package; every text is escaped and made printable.

    The style sheet, and the script that is named, are the only ones that the page's content
    security policy admits, by their hashes.
    """
    style, code = (_static(name) if name else "" for name in ("page.css", script))
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup(style),
            style_hash=Markup(_admitted(style)),
            script=Markup(code),
            script_hash=Markup(_admitted(code)),
            research_use=RESEARCH_USE,
            version=__version__,
        )
    )


def _static(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _admitted(code: str) -> str:
    """As a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def printable(text: str) -> str:
    """Shows characters that control, hide or reorder text, e.g. as ``⟨U+202E⟩``."""
    return _UNPRINTABLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def signed_mm(value: float) -> str:
    """A coordinate in mm with one decimal and a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


def window_title(window: Window) -> str:
    """Name, centre and width in HU, e.g. ``lung −600/1500``."""
    return f"{window.name} {window.center_hu:g}/{window.width_hu:g}".replace("-", "−")


@final
@dataclass(frozen=True)
class DrawnSlices:
    """Axial slices of one volume with their places and lengths in the patient.

    Args:
        images: Window, named with centre and width, to the slices drawn in it: anterior up, the
            patient's right on the left.
        slice_indices: z index of each slice in the volume that was read.
        position_mm: Superior coordinate of each slice in RAS+ mm.
        pixel_spacing_mm: Size of a pixel along (columns, rows).
        slab_mm: Thickness of the slab around each slice; empty without slabs.
    """

    images: Mapping[str, UInt8[np.ndarray, "slices height width"]]
    slice_indices: tuple[int, ...]
    position_mm: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    slab_mm: tuple[float, ...] = ()

    @property
    def counted(self) -> str:
        """How many: ``10 axial slices``, or ``10 axial slices with slabs of 15 mm``."""
        slabs = f" with {slabs_title(self.slab_mm)}" if self.slab_mm else ""
        return f"{len(self.slice_indices)} axial slices{slabs}"

    def name(self, number: int) -> str:
        """One slice, counted from 1: ``slice 87``, or ``slice 87 in a slab of 15 mm``."""
        slab = f" in a slab of {self.slab_mm[number - 1]:.0f} mm" if self.slab_mm else ""
        return f"slice {self.slice_indices[number - 1]}{slab}"

    @property
    def places(self) -> list[tuple[int, float]]:
        """Index and position of each slice."""
        return list(zip(self.slice_indices, self.position_mm, strict=True))

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of a slice."""
        height, width = next(iter(self.images.values())).shape[1:]
        across, down = self.pixel_spacing_mm
        return width * across, height * down


def slabs_title(slab_mm: Sequence[float]) -> str:
    """Slabs with their thickness, ``slabs of 15 mm`` or ``slabs of 12 to 13 mm``."""
    thick = sorted({round(mm) for mm in slab_mm})
    upper = f" to {thick[-1]}" if len(thick) > 1 else ""
    return f"slabs of {thick[0]}{upper} mm"


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
    drawn = {}
    for window in READING_WINDOWS:
        frames, _ = make_frames(volume, slice_indices, (window,), frame_size_px)
        drawn[window_title(window)] = frames[..., 0]
    return drawn


def png_uri(content: bytes) -> str:
    """A PNG file's bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def grey_uri(image: UInt8[np.ndarray, "height width"]) -> str:
    """A grey image as a lossless PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return png_uri(buffer.getvalue())


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
    environment.filters |= {"mm": signed_mm, "png": grey_uri}
    return environment


def _finalize(value: object) -> object:
    return printable(value) if type(value) is str else value
