"""Self-contained HTML pages: one style sheet inside, images inside, no script, nothing fetched."""

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
from ctscribe.write.draft import PatientReport, SentenceRow, SliceEvidence

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters but white space
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"  # direction overrides, invisible signs
    "\ud800-\udfff\ufffe\uffff]"  # halves of surrogate pairs, non-characters
)


def printable(text: str) -> str:
    """Shows characters that control, hide or reorder text, e.g. as ``⟨U+202E⟩``."""
    return _UNPRINTABLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def signed_mm(value: float) -> str:
    """A coordinate in mm with one decimal and a true minus sign."""
    return f"{value:.1f}".replace("-", "−")


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
    environment.filters["mm"] = signed_mm
    return environment


def _finalize(value: object) -> object:
    return printable(value) if type(value) is str else value


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


_SIDE_PX = 168
"""Longer side of a thumbnail; larger images are made smaller, none larger."""

_WINDOW = {
    "Arterial wall calcification": 1,
    "Cardiomegaly": 1,
    "Coronary artery wall calcification": 1,
    "Hiatal hernia": 1,
    "Lymphadenopathy": 1,
    "Medical material": 1,
    "Pericardial effusion": 1,
    "Pleural effusion": 1,
}
"""Findings that are looked for in the second of the reading windows, soft tissue."""


@final
@dataclass(frozen=True)
class Thumbnail:
    """A slice in millimetres, so that non-square pixels look right; the box too."""

    number: int
    slice_index: int
    position_mm: float
    uri: str
    box_mm: tuple[float, float, float, float] | None
    """(left, top, width, height)."""
    width_mm: float
    height_mm: float


@final
@dataclass(frozen=True)
class RestsOn:
    """What the page shows beside one sentence."""

    row: SentenceRow
    thumbnails: tuple[Thumbnail, ...]


def evidence_of(report: PatientReport) -> dict[int, RestsOn]:
    """By sentence number from 1, where the report knows what its sentences rest on."""
    texts = (*report.findings, *report.impression)
    stated = {
        sentence: _WINDOW.get(row.finding, 0)
        for row in report.labels
        if row.status == "present"
        for sentence in row.sentences
    }
    windows = list(report.display.values())
    found = {}
    for number, (text, row) in enumerate(zip(texts, report.sentences, strict=False), 1):
        images = windows[min(stated.get(text, 0), len(windows) - 1)]
        drawn = tuple(
            _thumbnail(each, images[each.number - 1], report.pixel_spacing_mm)
            for each in row.slices
        )
        found[number] = RestsOn(row, drawn)
    return found


def _thumbnail(
    shown: SliceEvidence,
    image: UInt8[np.ndarray, "height width"],
    pixel_spacing_mm: tuple[float, float],
) -> Thumbnail:
    height, width = image.shape
    across, down = pixel_spacing_mm
    box = None
    if shown.box_px is not None:
        left, top, right, bottom = shown.box_px
        box = (left * across, top * down, (right - left) * across, (bottom - top) * down)
    return Thumbnail(
        shown.number,
        shown.slice_index,
        shown.position_mm,
        grey_uri(_smaller(image)),
        box,
        width * across,
        height * down,
    )


def _smaller(image: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "_ _"]:
    small = Image.fromarray(image)
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    return np.asarray(small)
