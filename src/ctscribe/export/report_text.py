"""A draft report as plain text."""

import textwrap

from ctscribe import RESEARCH_USE
from ctscribe.export.printable import printable, signed_mm
from ctscribe.export.report import DRAFT, PatientReport

WIDTH = 88
"""Longest line, in characters."""


def to_text(report: PatientReport) -> str:
    """The report with what must stand beside it, wrapped to `WIDTH` characters."""
    first, last = report.position_mm[0], report.position_mm[-1]
    made_by = report.provenance
    blocks = [
        _fill(f"{DRAFT.upper()}. {RESEARCH_USE}"),
        _fill(f"Study: {report.study}"),
        *(_fill(f"Warning: {warning}") for warning in report.warnings),
        "FINDINGS\n" + _fill(" ".join(report.findings)),
        "IMPRESSION\n" + _fill(" ".join(report.impression)),
        _fill(
            f"Written from {len(report.slice_indices)} axial slices between "
            f"{signed_mm(first)} mm and {signed_mm(last)} mm, seen in the window "
            f"{', '.join(report.model_windows)} HU, by {made_by.model_preset}, weights "
            f"{made_by.weights_sha256[:12]}, ctscribe {made_by.ctscribe_version}, "
            f"{made_by.created}."
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _fill(text: str) -> str:
    return textwrap.fill(printable(text), WIDTH, break_long_words=False, break_on_hyphens=False)
