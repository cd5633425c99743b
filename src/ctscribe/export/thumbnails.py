"""Small pictures of the slices a sentence rests on, with a box."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ctscribe.export.page import grey_uri
from ctscribe.export.report import PatientReport, SentenceRow, SliceEvidence

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
