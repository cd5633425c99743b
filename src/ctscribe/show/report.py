"""One scan → a draft report as text, JSON and one HTML page."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json, write_text
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.frames import WINDOWS
from ctscribe.scan.show import PreparedVolume
from ctscribe.show.page import (
    draw_slices,
    evidence_of,
    printable,
    render,
    signed_mm,
    slice_panel,
    window_title,
)
from ctscribe.text.sections import split_report, split_sentences
from ctscribe.write.draft import (
    DRAFT,
    INTENDED_USE,
    Draft,
    FindingRow,
    Grid,
    PatientReport,
    SentenceRow,
)

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


SCHEMA = "ctscribe.report/1"
"""Name and version; a field changes its meaning only with the version."""


def to_json(report: PatientReport) -> dict[str, Any]:
    """Everything but the images; texts are verbatim, positions in mm, spacings along (x, y, z)."""
    return {
        "schema": SCHEMA,
        "use": RESEARCH_USE,
        "status": "preliminary" if report.not_assessable is None else "not assessable",
        "not_assessable": report.not_assessable,
        "verified": False,
        "study": report.study,
        "findings": list(report.findings),
        "impression": list(report.impression),
        "sentences": [_without_text(row) for row in report.sentences],
        "labels": [asdict(row) | {"sentences": list(row.sentences)} for row in report.labels],
        "warnings": list(report.warnings),
        "slices": [
            {"slice_index": index, "position_mm": position}
            for index, position in zip(report.slice_indices, report.position_mm, strict=True)
        ],
        "model_windows": list(report.model_windows),
        "source_kind": report.source_kind,
        "geometry": {
            title: {
                "spacing_mm": list(grid.spacing_mm),
                "shape_xyz": list(grid.shape_xyz),
                "orientation": grid.orientation,
            }
            for title, grid in report.grids.items()
        },
        "provenance": asdict(report.provenance),
        "intended_use": dict(INTENDED_USE),
    }


def _without_text(row: SentenceRow) -> dict[str, Any]:
    """The words stand under findings and impression already."""
    return {name: value for name, value in asdict(row).items() if name != "text"}


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


WARNINGS = {
    "W_NOT_CHEST": "Nothing in this volume looks like lungs; it may not be a chest CT, and the "
    "draft below is not to be relied on.",
}
"""Codes of which a reader of the page must know more than their meaning."""


def save_report(draft: Draft, out_dir: Path) -> dict[str, Path]:
    """Writes ``report.txt``, ``report.json`` and ``report.html``; returns their paths by suffix."""
    paths = {suffix: out_dir / f"report.{suffix}" for suffix in ("txt", "json", "html")}
    for path in paths.values():
        save_draft(draft, path)
    return paths


def save_draft(draft: Draft, path: Path) -> None:
    """Writes a draft as a page (``.html``), text (``.txt``) or JSON (``.json``).

    Raises:
        CtscribeError: ``E_OPTION`` for another suffix.
    """
    report = report_of(draft)
    if path.suffix == ".html":
        write_text(path, report_page(report))
    elif path.suffix == ".txt":
        write_text(path, to_text(report))
    elif path.suffix == ".json":
        write_json(path, to_json(report))
    else:
        raise CtscribeError(
            "E_OPTION",
            f"a draft is saved as .html, .txt or .json, but {path.name} is asked for",
        )


def report_of(draft: Draft) -> PatientReport:
    """A draft with its slices drawn, as the page, the text and the JSON are made from it."""
    findings, impression = split_report(draft.text)
    prepared = draft.prepared
    report = PatientReport(
        study=draft.study,
        findings=tuple(split_sentences(findings)),
        impression=tuple(split_sentences(impression)),
        labels=draft.findings,
        model_windows=tuple(
            window_title(window) for window in WINDOWS[draft.recipe.slices.windows]
        ),
        display={},
        slice_indices=(),
        position_mm=(),
        pixel_spacing_mm=draft.recipe.volume.spacing_mm[:2],
        source_kind=draft.source_kind,
        grids={},
        warnings=(),
        provenance=draft.provenance,
        sentences=draft.sentences,
        not_assessable=draft.not_assessable,
    )
    return report if prepared is None else _with_slices(report, prepared)


def _with_slices(report: PatientReport, prepared: PreparedVolume) -> PatientReport:
    source, shown = prepared.resampling.source, prepared.shown
    num_slices, height, width, _ = prepared.frames.shape
    depth = prepared.resampling.shape_xyz[2]
    told = {code: _told(code, prepared) for code in prepared.warnings}
    if report.not_assessable is not None:  # that already says what these would
        told = {code: text for code, text in told.items() if code not in WARNINGS}
    return replace(
        report,
        display=draw_slices(shown, range(num_slices), (height, width)),
        slice_indices=prepared.slice_indices,
        position_mm=prepared.position_mm,
        pixel_spacing_mm=shown.spacing_mm[:2],
        grids={
            "Source": Grid(source.spacing_mm, source.shape_xyz, source.orientation),
            "As read": Grid(shown.spacing_mm, (*shown.shape_xyz[:2], depth), "RAS"),
        },
        warnings=tuple(told.values()),
    )


def _told(code: str, prepared: PreparedVolume) -> str:
    details = prepared.source_details
    if code == "W_OTHER_SERIES":
        return f"The folder holds several CT series. {say_series(details['series'])}"
    if code == "W_TILT":
        return f"The gantry was tilted by {details['tilt_degrees']:g} degrees; this was undone."
    return WARNINGS.get(code, CODES[code].meaning)
