"""One scan → a draft report as text, JSON and one HTML page."""

import hashlib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from ctscribe import RESEARCH_USE, __version__
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_json, write_json, write_text
from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import recipe_of, weights_sha256
from ctscribe.data.prepared import prepare_volume
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.dicom_sources import is_dicom
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
    PatientReport,
    Provenance,
    VoxelGeometry,
    finding_rows,
    write_draft,
)
from ctscribe.write.quality import UNREADABLE, why_not_assessable

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
        "sentences": [asdict(row) for row in report.sentences],
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


@final
@dataclass(frozen=True)
class _Asked:
    """Which scan is to be reported on, and by which weights."""

    source: Path
    run_dir: Path
    recipe: Recipe


def report_patient(
    source: Path, run_dir: Path, out_dir: Path, *, name: str | None = None
) -> dict[str, Path]:
    """Writes ``report.txt``, ``report.json`` and ``report.html`` for one scan.

    A scan that cannot be assessed gets the reason instead of a report.

    Nothing of the source's name or header enters them: without a name of the user's choosing
    the study is called after a hash of its voxels.

    Args:
        source: NIfTI file, or folder, zip archive or enhanced file of one DICOM series.
        run_dir: Training run whose best weights and recipe are used.
        out_dir: Where to write.
        name: How the report shall call the study.

    Returns:
        ``text``, ``json`` and ``html``.

    Raises:
        CtscribeError: What is wrong with the scan or the run, in one sentence.
    """
    if not source.exists():
        raise CtscribeError("E_MISSING", "the scan must be a file or folder, but there is none")
    asked = _Asked(source, run_dir, recipe_of(run_dir))
    try:
        prepared = _prepare(source, asked.recipe)
    except CtscribeError as error:
        if error.code not in UNREADABLE:
            raise
        report = _refuse(name or "scan", asked, CODES[error.code].meaning)
    else:
        report = _write(name, asked, prepared)
    paths = {kind: out_dir / f"report.{kind}" for kind in ("txt", "json", "html")}
    write_text(paths["txt"], to_text(report))
    write_json(paths["json"], to_json(report))
    write_text(paths["html"], report_page(report))
    return {"text": paths["txt"], "json": paths["json"], "html": paths["html"]}


def _write(name: str | None, asked: _Asked, prepared: PreparedVolume) -> PatientReport:
    study = name or f"scan {hashlib.sha256(prepared.frames.tobytes()).hexdigest()[:10]}"
    reason = why_not_assessable(prepared.frames, prepared.warnings)
    if reason:
        report = _assemble(study, asked, prepared, Draft(""))
        warnings = tuple(w for w in report.warnings if w not in WARNINGS.values())
        return replace(report, not_assessable=reason, warnings=warnings)
    return _assemble(study, asked, prepared, write_draft(asked.run_dir, asked.recipe, prepared))


def _prepare(source: Path, recipe: Recipe) -> PreparedVolume:
    return prepare_volume(
        source,
        study="the scan",
        spacing_mm=recipe.volume.spacing_mm,
        intensity=recipe.volume.intensity,
        antialias=recipe.volume.antialias,
        max_tilt_degrees=recipe.volume.max_tilt_degrees,
        num_slices=recipe.slices.num_slices,
        windows=recipe.slices.windows,
        frame_size_px=recipe.slices.frame_size_px,
        token_budget=recipe.slices.token_budget,
    )


def _refuse(study: str, asked: _Asked, reason: str) -> PatientReport:
    """What is said of a volume that cannot even be shown."""
    return PatientReport(
        study=study,
        findings=(),
        impression=(),
        labels=(),
        model_windows=_windows(asked.recipe),
        display={},
        slice_indices=(),
        position_mm=(),
        pixel_spacing_mm=asked.recipe.volume.spacing_mm[:2],
        source_kind="DICOM" if is_dicom(asked.source) else "NIfTI",
        grids={},
        warnings=(),
        provenance=_provenance(asked),
        not_assessable=reason[0].lower() + reason[1:].rstrip("."),
    )


def _windows(recipe: Recipe) -> tuple[str, ...]:
    return tuple(window_title(window) for window in WINDOWS[recipe.slices.windows])


def _provenance(asked: _Asked) -> Provenance:
    return Provenance(
        ctscribe_version=__version__,
        model_preset=asked.recipe.model.preset,
        weights_sha256=weights_sha256(asked.run_dir / "best"),
        recipe_sha256=sha256_of_json(json.loads(asked.recipe.model_dump_json())),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _labelled(draft: Draft) -> tuple[FindingRow, ...]:
    rows = finding_rows("\n".join(split_report(draft.text))) if draft.text else ()
    if draft.probabilities is None:
        return rows
    return tuple(
        replace(row, probability=probability)
        for row, probability in zip(rows, draft.probabilities, strict=True)
    )


def _told(code: str, prepared: PreparedVolume) -> str:
    details = prepared.source_details
    if code == "W_OTHER_SERIES":
        return f"The folder holds several CT series. {say_series(details['series'])}"
    if code == "W_TILT":
        return f"The gantry was tilted by {details['tilt_degrees']:g} degrees; this was undone."
    return WARNINGS.get(code, CODES[code].meaning)


def _assemble(study: str, asked: _Asked, prepared: PreparedVolume, draft: Draft) -> PatientReport:
    findings, impression = split_report(draft.text)
    source, shown = prepared.resampling.source, prepared.shown
    num_slices, height, width, _ = prepared.frames.shape
    depth = prepared.resampling.shape_xyz[2]
    return PatientReport(
        study=study,
        findings=tuple(split_sentences(findings)),
        impression=tuple(split_sentences(impression)),
        labels=_labelled(draft),
        model_windows=_windows(asked.recipe),
        display=draw_slices(shown, range(num_slices), (height, width)),
        slice_indices=prepared.slice_indices,
        position_mm=prepared.position_mm,
        pixel_spacing_mm=shown.spacing_mm[:2],
        source_kind="DICOM" if is_dicom(asked.source) else "NIfTI",
        grids={
            "Source": VoxelGeometry(source.spacing_mm, source.shape_xyz, source.orientation),
            "As read": VoxelGeometry(shown.spacing_mm, (*shown.shape_xyz[:2], depth), "RAS"),
        },
        warnings=tuple(_told(code, prepared) for code in prepared.warnings),
        provenance=_provenance(asked),
        sentences=draft.sentences,
    )
