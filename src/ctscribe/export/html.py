"""A draft report as one self-contained HTML page."""

from collections.abc import Sequence

from ctscribe.export.page import render
from ctscribe.export.panel import slice_panel
from ctscribe.export.report import DRAFT, INTENDED_USE, FindingRow, PatientReport
from ctscribe.export.thumbnails import evidence_of

_STATUS_ORDER = ("present", "uncertain", "absent", "not mentioned")


def report_page(report: PatientReport) -> str:
    """The page: text, slices with millimetres and orientation, findings, provenance.

    Nothing in it is fetched or executed; texts are escaped. Lengths are true to
    ``pixel_spacing_mm``, also where pixels are not square.
    """
    numbered = list(enumerate((*report.findings, *report.impression), 1))
    panel = None
    if report.display:
        panel = slice_panel(
            "slices",
            report.display,
            report.slice_indices,
            report.position_mm,
            report.pixel_spacing_mm,
        )
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
        panel=panel,
        rests_on=evidence_of(report),
        intended_use=INTENDED_USE,
    )


def _sentence_numbers(row: FindingRow, numbered: Sequence[tuple[int, str]]) -> list[int]:
    return [number for number, text in numbered if text in row.sentences]
