"""Drafts many scans with one loaded model: a draft of each, an index page and ``drafts.jsonl``.

In: the scans of a data set or of a prepared folder. Existing drafts of the same inputs are kept, so
an interrupted call can be repeated. A scan that cannot be read becomes a row with a code and a
reason, and is tried again the next time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from urllib.parse import quote

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, sha256_of_json, write_text
from ctscribe.base.locks import one_writer
from ctscribe.base.rows import DraftRow, SkippedRow, append_row, read_rows, write_rows
from ctscribe.base.runs import claim
from ctscribe.data.listing import ListedVolume
from ctscribe.data.prepared import Prepared, stem
from ctscribe.scan.nifti_header import Prefer
from ctscribe.scan.read import fingerprint
from ctscribe.show.hospital_outputs import NO_OUTPUTS, HospitalOutputs
from ctscribe.show.page import render
from ctscribe.show.report import save_report
from ctscribe.text.sections import split_report
from ctscribe.write.draft import Draft

if TYPE_CHECKING:
    from ctscribe.write.cue_table import CueTable
    from ctscribe.write.writer import ReportWriter

ROWS = "drafts.jsonl"
_STOPPING = frozenset({"E_WRITE", "E_WEIGHTS", "E_PREPARED", "E_ENCODER"})
"""Errors that stop the whole call, because every other scan would meet them too."""
Cue = tuple[str, ...] | None


@final
@dataclass(frozen=True)
class ScanToDraft:
    """One scan of many.

    Attributes:
        name: Name of the volume in the data set; its stem names the draft's folder.
        patient_id: Of the data set.
        scan_id: Name of the study in the draft.
        made_of: Returns all that decides the draft, except the run.
        draft: Reads the scan and writes its draft, given a cue.
        source: The scan's file or folder; None where only prepared data is available.
        series: Series of the source to read; None for the only one.
    """

    name: str
    patient_id: str
    scan_id: str
    made_of: Callable[[], dict[str, Any]]
    draft: Callable[[Cue], Draft]
    source: Path | None = None
    series: str | None = None


def listed_scans(
    writer: "ReportWriter",
    entries: Iterable[ListedVolume | SkippedRow],
    *,
    prefer: Prefer | None = None,
) -> Iterator[ScanToDraft | SkippedRow]:
    """The scans of a data set, reports or none; ``prefer`` is that of `ReportWriter.report`."""
    for one in entries:
        if isinstance(one, SkippedRow):
            yield one
            continue
        options = {"prefer": prefer, "series": one.series}
        yield ScanToDraft(
            one.volume_name,
            one.patient_id,
            one.scan_id,
            partial(_source, one, options),
            partial(writer.report, one.path, one.scan_id, prefer=prefer, series=one.series),
            one.path,
            one.series,
        )


def _source(one: ListedVolume, options: Mapping[str, Any]) -> dict[str, Any]:
    return {**fingerprint(one.path, one.volume_name), **options}


def prepared_scans(writer: "ReportWriter", prepared: Prepared) -> Iterator[ScanToDraft]:
    """The studies of a prepared folder, whatever their split.

    Raises:
        CtscribeError: ``E_PREPARED``, ``E_MISSING`` where volumes were not kept.
    """
    prepared.require(writer.recipe)
    for study in prepared.studies:
        prepared.require_volume(study)
    for study in prepared.studies:
        yield ScanToDraft(
            study.volume_name,
            study.patient_id,
            study.scan_id,
            partial(lambda each: {"study": prepared.sha256([each])}, study),
            partial(writer.draft, prepared, study),
        )


def draft_many(
    writer: "ReportWriter",
    scans: Sequence[ScanToDraft | SkippedRow],
    out: Path,
    outputs: HospitalOutputs = NO_OUTPUTS,
    *,
    cues: "CueTable | None" = None,
    with_volume: bool = True,
    progress: ProgressCallback = lambda done, total: None,
    failed: Callable[[str], None] = lambda code: None,
) -> list[DraftRow]:
    """Writes ``OUT/<name>/report.*`` of each scan, ``OUT/index.html`` and ``OUT/drafts.jsonl``.

    Args:
        writer: The run; a folder with drafts of another one is refused.
        scans: Scans, and rows of sources that could not be listed, which become failed rows.
        out: Folder, which may hold the drafts of an interrupted call.
        outputs: Further documents for hospital systems, written where the scan has images that
            they can refer to.
        cues: Table of the findings that prompts state.
        with_volume: Whether the pages contain the scans.
        progress: Called with (drafts done, all scans).
        failed: Called with the code of each scan without a draft.

    Returns:
        A row per scan, in their order.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``, ``E_BUSY``, ``E_WRITE``, or what is wrong with the run.
    """
    with one_writer(out):
        claim(out / ROWS, _made_by(writer, outputs, cues) | {"with_volume": with_volume})
        rows = _done(out, scans)
        missing = [scan for scan in scans if _name(scan) not in rows]
        progress(len(rows), len(scans))
        for done, scan in enumerate(missing, len(rows) + 1):
            row = _draft(scan, out, outputs, cues, with_volume)
            if row.code is not None:
                failed(row.code)
            append_row(out / ROWS, row)
            rows[row.volume_name] = row
            progress(done, len(scans))
        in_order = [rows[_name(scan)] for scan in scans]
        write_rows(out / ROWS, in_order)
        write_text(out / "index.html", index_page(in_order))
        return in_order


def _made_by(
    writer: "ReportWriter", outputs: HospitalOutputs, cues: "CueTable | None"
) -> dict[str, Any]:
    fitted = writer.calibration
    return {
        **writer.made_of(),
        "calibration": None if fitted is None else fitted.model_dump(mode="json"),
        "cues": None if cues is None else [cues.sha256, cues.threshold],
        "documents": asdict(outputs),
    }


def _name(scan: ScanToDraft | SkippedRow) -> str:
    return scan.name if isinstance(scan, ScanToDraft) else scan.volume_name


def _done(out: Path, scans: Sequence[ScanToDraft | SkippedRow]) -> dict[str, DraftRow]:
    """Rows of drafts that are up to date, by name; all other rows are removed from the file."""
    path = out / ROWS
    if not path.exists():
        return {}
    before = {row.volume_name: row for row in read_rows(path, DraftRow, partial=True)}
    kept = {}
    for scan in scans:
        row = before.get(_name(scan))
        if row is None or row.status == "failed" or isinstance(scan, SkippedRow):
            continue
        page = out / stem(scan.name) / "report.html"
        with suppress(CtscribeError):  # an unreadable scan fails when it is drafted
            if page.exists() and row.source_sha256 == sha256_of_json(scan.made_of()):
                kept[scan.name] = row
    write_rows(path, kept.values())
    return kept


def _draft(
    scan: ScanToDraft | SkippedRow,
    out: Path,
    outputs: HospitalOutputs,
    cues: "CueTable | None",
    with_volume: bool,
) -> DraftRow:
    """Writes one draft; raises only the errors that stop the whole call."""
    if isinstance(scan, SkippedRow):
        name = scan.volume_name
        return _failed_row(name, name, name, scan.code, scan.reason)
    try:
        source = sha256_of_json(scan.made_of())
        these = outputs.of(scan.source)
        images = these.read_source(scan.source, scan.series)
        draft = scan.draft(None if cues is None else cues.of(scan.name, scan.scan_id))
        folder = out / stem(scan.name)
        save_report(draft, folder, with_volume=with_volume)
        documents = these.save(draft, images, folder)
    except CtscribeError as error:
        if error.code in _STOPPING or (error.code == "E_CUES" and cues is None):
            raise
        return _failed_row(scan.name, scan.patient_id, scan.scan_id, error.code, error.sentence)
    except MemoryError:
        told = CtscribeError("E_MEMORY", f"{scan.name} must fit into memory, but does not")
        return _failed_row(scan.name, scan.patient_id, scan.scan_id, told.code, told.sentence)
    findings, impression = split_report(draft.text)
    return DraftRow(
        volume_name=scan.name,
        patient_id=scan.patient_id,
        scan_id=scan.scan_id,
        status="written" if draft.not_assessable is None else "not assessable",
        reason=draft.not_assessable,
        findings=findings,
        impression=impression,
        present=tuple(row.finding for row in draft.findings if row.status == "present"),
        finished=draft.finished,
        documents=tuple(path.name for path in documents),
        source_sha256=source,
    )


def _failed_row(name: str, patient_id: str, scan_id: str, code: str, reason: str) -> DraftRow:
    return DraftRow(
        volume_name=name,
        patient_id=patient_id,
        scan_id=scan_id,
        status="failed",
        code=code,
        reason=reason,
    )


def index_page(rows: Sequence[DraftRow]) -> str:
    """The page with a link to each draft, and a reason where there is none."""
    counts = {status: sum(row.status == status for row in rows) for status in _STATUSES}
    return render(
        "drafts.html",
        drafts=[(row, quote(stem(row.volume_name))) for row in rows],
        counts=counts,
    )


_STATUSES = ("written", "not assessable", "failed")
