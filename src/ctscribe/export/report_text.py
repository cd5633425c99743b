"""A draft report as plain text."""

import textwrap

from ctscribe import RESEARCH_USE
from ctscribe.export.printable import printable, signed_mm
from ctscribe.export.report import DRAFT, PatientReport

WIDTH = 88
"""Longest line, in characters."""


def to_text(report: PatientReport) -> str:
    """The report with what must stand beside it, wrapped to `WIDTH` characters."""
    made_by = report.provenance
    if report.not_assessable is not None:
        return _joined(
            f"NOT ASSESSABLE. {RESEARCH_USE}",
            f"Study: {report.study}",
            f"No report was written: {report.not_assessable}.",
        )
    made_by = report.provenance
    places = [signed_mm(report.position_mm[end]) for end in (0, -1)]
    return _joined(
        f"{DRAFT.upper()}. {RESEARCH_USE}",
        f"Study: {report.study}",
        *(f"Warning: {warning}" for warning in report.warnings),
        _headed("FINDINGS", report.findings),
        _headed("IMPRESSION", report.impression),
        f"Written from {len(report.slice_indices)} axial slices between {places[0]} mm and "
        f"{places[1]} mm, seen in the window {', '.join(report.model_windows)} HU, by "
        f"{made_by.model_preset}, weights {made_by.weights_sha256[:12]}, ctscribe "
        f"{made_by.ctscribe_version}, {made_by.created}.",
    )


def _joined(*blocks: str) -> str:
    return "\n\n".join(block if "\n" in block else _fill(block) for block in blocks) + "\n"


def _headed(heading: str, sentences: tuple[str, ...]) -> str:
    return f"{heading}\n{_fill(' '.join(sentences))}"


def _fill(text: str) -> str:
    return textwrap.fill(printable(text), WIDTH, break_long_words=False, break_on_hyphens=False)
