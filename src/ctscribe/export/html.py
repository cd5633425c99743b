"""A draft report as one self-contained HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ctscribe.export.page import grey_uri, render
from ctscribe.export.report import DRAFT, INTENDED_USE, FindingRow, PatientReport

SCALE_BAR_MM = 50

_STATUS_ORDER = ("present", "uncertain", "absent", "not mentioned")


@final
@dataclass(frozen=True)
class ShownSlice:
    """A slice of the page: its place, and (window, image as data URI) for each window."""

    number: int
    slice_index: int
    position_mm: float
    planes: tuple[tuple[str, str], ...]


def report_page(report: PatientReport) -> str:
    """The page: text, slices with millimetres and orientation, findings, provenance.

    Nothing in it is fetched or executed; texts are escaped. Lengths are true to
    ``pixel_spacing_mm``, also where pixels are not square.
    """
    height, width = next(iter(report.display.values())).shape[1:]
    numbered = list(enumerate((*report.findings, *report.impression), 1))
    return render(
        "report.html",
        report=report,
        draft=DRAFT,
        findings=numbered[: len(report.findings)],
        impression=numbered[len(report.findings) :],
        labels=sorted(report.labels, key=lambda row: _STATUS_ORDER.index(row.status)),
        numbers={row.finding: _sentence_numbers(row, numbered) for row in report.labels},
        stated={text for row in report.labels if row.status == "present" for text in row.sentences},
        with_probability=any(row.probability is not None for row in report.labels),
        slices=shown_slices(report),
        width_mm=width * report.pixel_spacing_mm[0],
        height_mm=height * report.pixel_spacing_mm[1],
        scale_bar_mm=SCALE_BAR_MM,
        intended_use=INTENDED_USE,
    )


def shown_slices(report: PatientReport) -> list[ShownSlice]:
    """The slices in report order, each drawn in every window."""
    drawn = {
        window: [grey_uri(image) for image in images] for window, images in report.display.items()
    }
    places = zip(report.slice_indices, report.position_mm, strict=True)
    return [
        ShownSlice(
            number,
            slice_index,
            position_mm,
            tuple((window, uris[number - 1]) for window, uris in drawn.items()),
        )
        for number, (slice_index, position_mm) in enumerate(places, 1)
    ]


def _sentence_numbers(row: FindingRow, numbered: Sequence[tuple[int, str]]) -> list[int]:
    return [number for number, text in numbered if text in row.sentences]
