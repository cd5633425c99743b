"""A draft as files: page, text and JSON; see `patient_report`."""

from pathlib import Path

from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_plain_json, write_text
from ctscribe.scan.boxes import reach_of_slices
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.frames import WINDOWS, PreparedVolume
from ctscribe.scan.slabs import slab_thickness_mm
from ctscribe.show.page import DrawnSlices, draw_slices, slabs_title, window_title
from ctscribe.show.patient_report import Geometry, PatientReport, report_page, to_json, to_text
from ctscribe.show.viewer import ShownScan
from ctscribe.text.sections import split_report, split_sentences
from ctscribe.write.draft import Draft

WARNINGS = {
    "W_NOT_CHEST": "Nothing in this volume looks like lungs; it may not be a chest CT, and the "
    "draft below is not to be relied on.",
}
"""Codes of which a reader of the page must know more than their meaning."""


def save_report(draft: Draft, out_dir: Path, *, with_volume: bool = True) -> dict[str, Path]:
    """Writes ``report.json``, ``report.txt`` and ``report.html``; returns their paths by suffix.

    An earlier draft of the same scan is replaced. Without the volume the page has no images.

    Raises:
        CtscribeError: ``E_EXISTS`` where the folder holds a draft of another scan, or one of which
            that is not known.
    """
    # the JSON comes first: it says whose the others are
    paths = {suffix: out_dir / f"report.{suffix}" for suffix in ("json", "txt", "html")}
    if any(path.exists() for path in paths.values()) and not _is_of(draft, paths["json"]):
        raise CtscribeError(
            "E_EXISTS",
            f"{out_dir} must be new or hold a draft of this scan with the same frames, but holds "
            "another draft",
        )
    for path in paths.values():
        save_draft(draft, path, with_volume=with_volume)
    return paths


def _is_of(draft: Draft, path: Path) -> bool:
    """Whether a draft's JSON is of the same scan."""
    there = read_json(path) if path.is_file() else {}
    return draft.scan_sha256 is not None and there.get("scan_sha256") == draft.scan_sha256


def save_draft(draft: Draft, path: Path, *, with_volume: bool = True) -> None:
    """Writes a draft as a page (``.html``), text (``.txt``) or JSON (``.json``).

    Raises:
        CtscribeError: ``E_OPTION`` for another suffix.
    """
    report = report_of(draft, with_volume=with_volume)
    if path.suffix == ".html":
        write_text(path, report_page(report))
    elif path.suffix == ".txt":
        write_text(path, to_text(report))
    elif path.suffix == ".json":
        write_plain_json(path, to_json(report))
    else:
        raise CtscribeError(
            "E_OPTION",
            f"a draft is saved as .html, .txt or .json, but {path.name} is asked for",
        )


def report_of(draft: Draft, *, with_volume: bool = True) -> PatientReport:
    """A draft with its slices drawn, as the page, the text and the JSON are made from it.

    Without the volume its page has no images.
    """
    findings, impression = split_report(draft.text)
    prepared = draft.prepared
    return PatientReport(
        study=draft.study,
        findings=tuple(split_sentences(findings)),
        impression=tuple(split_sentences(impression)),
        labels=draft.findings,
        model_windows=tuple(map(window_title, WINDOWS[draft.recipe.slices.windows])),
        slices=None if prepared is None else _drawn(prepared),
        source_kind=draft.source_kind,
        geometry={} if prepared is None else _geometry(prepared),
        warnings=() if prepared is None else _warnings(prepared, draft.not_assessable is not None),
        provenance=draft.provenance,
        sentences=draft.sentences,
        not_assessable=draft.not_assessable,
        finished=draft.finished,
        self_check=draft.self_check,
        scan_sha256=draft.scan_sha256,
        scan=None if prepared is None or not with_volume else _scan(prepared),
        encoder=draft.recipe.model.encoder,
    )


def _scan(prepared: PreparedVolume) -> ShownScan:
    reach = prepared.reach_z or reach_of_slices(prepared.slice_indices)
    return ShownScan(
        prepared.resampling.source,
        prepared.frame_to_ras,
        tuple((float(low), float(high)) for low, high in reach),
    )


def _drawn(prepared: PreparedVolume) -> DrawnSlices:
    num_slices, height, width, _ = prepared.frames.shape
    every, size_px = range(num_slices), (height, width)
    slab_mm = slab_thickness_mm(prepared.reach_z, prepared.resampling.spacing_mm)
    drawn = draw_slices(prepared.shown, every, size_px)
    if prepared.slabs is not None:
        title, images = next(iter(draw_slices(prepared.slabs, every, size_px).items()))
        drawn[f"maximum of {slabs_title(slab_mm)}, {title}"] = images
    return DrawnSlices(
        drawn,
        prepared.slice_indices,
        prepared.position_mm,
        prepared.shown.spacing_mm[:2],
        slab_mm,
    )


def _geometry(prepared: PreparedVolume) -> dict[str, Geometry]:
    """Of the source, where it is known, and of the volume whose slices the model was shown."""
    shown, depth = prepared.shown, prepared.resampling.shape_xyz[2]
    read = {"As read": Geometry(shown.spacing_mm, (*shown.shape_xyz[:2], depth), "RAS")}
    source = prepared.source_details.get("source")
    if source is None:
        return read
    spacing_mm, shape_xyz = tuple(source["spacing_mm"]), tuple(source["shape_xyz"])
    return {"Source": Geometry(spacing_mm, shape_xyz, source["orientation"]), **read}


def _warnings(prepared: PreparedVolume, refused: bool) -> tuple[str, ...]:
    """In sentences; a refusal already says what the codes of `WARNINGS` would."""
    codes = (code for code in prepared.warnings if not (refused and code in WARNINGS))
    return tuple(_told(code, prepared) for code in codes)


def _told(code: str, prepared: PreparedVolume) -> str:
    details = prepared.source_details
    if code == "W_OTHER_SERIES":
        return f"The folder holds several CT series. {say_series(details['series'])}"
    if code == "W_TILT":
        return f"The gantry was tilted by {details['tilt_degrees']:g} degrees; this was undone."
    return WARNINGS.get(code, CODES[code].meaning)
