"""The stage from prepared scans to ``predictions.jsonl``: one report per scan, resumable."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, writing
from ctscribe.base.locks import one_writer_of
from ctscribe.base.rows import PredictionRow, StudyRow, append_row, read_rows, write_rows
from ctscribe.base.runs import claim
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.sections import split_report
from ctscribe.text.template import write_template
from ctscribe.write.calibration import FILE
from ctscribe.write.cue_table import CueTable
from ctscribe.write.writer import ReportWriter, View


def generate_template(
    writer: ReportWriter, prepared: Prepared, split: Split, out_path: Path
) -> list[PredictionRow]:
    """Writes JSONL, one report per scan: the findings whose calibrated probability is high enough.

    Raises:
        CtscribeError: ``E_MISSING`` when the run is not calibrated, ``E_NO_QUERIES``,
            ``E_EMPTY_SPLIT``, ``E_PREPARED``.
    """
    calibration = writer.calibration
    if calibration is None:
        raise CtscribeError(
            "E_MISSING",
            f"the template needs {writer.run_dir / FILE} of the run's best weights, as "
            "`ctscribe calibrate` writes it",
        )
    prepared.require(writer.recipe)
    scans = prepared.scans(split, reported=False)
    store = writer.features(prepared, scans)
    logits = writer.finding_logits([store.visual(study) for study in scans])
    stated = calibration.findings(logits) >= calibration.threshold
    rows = [_template_row(study, labels) for study, labels in zip(scans, stated, strict=True)]
    write_rows(out_path, rows)
    return rows


def _template_row(study: StudyRow, stated: np.ndarray) -> PredictionRow:
    findings, impression = write_template(tuple(int(each) for each in stated))
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=findings,
        impression=impression,
        num_tokens=0,
        finished=True,
    )


def generate(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_path: Path,
    *,
    cues: CueTable | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> list[PredictionRow]:
    """Writes ``predictions.jsonl``: one row per scan, from its first prepared reconstruction.

    Scans already in the file are skipped, and a last line cut by an interruption is dropped, so
    the same call goes on where it stopped; what it was asked for lies beside it. Where the run
    is told findings, ``cues`` tells them in the queries' place. ``progress`` is told (scans done,
    all scans).

    Returns:
        The rows in the order of the prepared studies.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when the split has no scan, ``E_PREPARED``, ``E_CUES``,
            ``E_RUN_EXISTS`` when the file was written otherwise, ``E_BUSY``.
    """
    prepared.require(writer.recipe)
    scans = prepared.scans(split, reported=False)
    with one_writer_of(out_path):
        writer.hold_against(prepared)
        request = writer.made_of() | {
            "cues": _told_by(writer, cues),
            "scans_sha256": prepared.sha256(scans),
        }
        claim(out_path, request)
        missing = drop_cut_line(scans, out_path)
        progress(len(scans) - len(missing), len(scans))
        if missing:
            view = told_by_table(writer.features(prepared, missing).visual, cues)
            write_scans(writer, scans, view, out_path, progress=progress)
        rows = {row.scan_id: row for row in read_rows(out_path, PredictionRow)}
        return [rows[study.scan_id] for study in scans]


def _told_by(writer: ReportWriter, cues: CueTable | None) -> list[str | float] | None:
    """What the cues of a file of reports follow from."""
    if cues is not None:
        return [cues.sha256, cues.threshold]
    if not writer.recipe.model.cues or writer.calibration is None:
        return None
    return ["queries", writer.calibration.cue_threshold]


def told_by_table(view: View, cues: CueTable | None) -> View:
    """The same view with the table's cue of each study, where there is a table."""
    if cues is None:
        return view
    return lambda study: replace(view(study), cue=cues.of(study.volume_name, study.scan_id))


def write_scans(
    writer: ReportWriter,
    scans: Sequence[StudyRow],
    view: View,
    out_path: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> None:
    """Appends a report of every scan that the JSONL file lacks, written from what a view shows.

    There must be one row per scan; ``progress`` is told (scans done, all scans) after each batch.
    """
    missing = drop_cut_line(scans, out_path)
    done, size = len(scans) - len(missing), writer.generate.batch_size
    for start in range(0, len(missing), size):
        batch = missing[start : start + size]
        shown = [writer.told(view(study)) for study in batch]
        for study, visual, answer in zip(batch, shown, writer.answers(shown), strict=True):
            append_row(out_path, answer_row(study, visual, answer))
        progress(done + start + len(batch), len(scans))


def drop_cut_line(scans: Sequence[StudyRow], path: Path) -> list[StudyRow]:
    """Takes a half-written last line out of the file; returns the scans without a report in it."""
    if not path.exists():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return list(scans)
    rows = read_rows(path, PredictionRow, partial=True)
    if not path.read_bytes().endswith(b"\n"):
        write_rows(path, rows)
    written = {row.scan_id for row in rows}
    return [study for study in scans if study.scan_id not in written]


def answer_row(study: StudyRow, visual: Visual, answer: Answer) -> PredictionRow:
    """What was written of a scan, as a row of predictions."""
    findings, impression = split_report(answer.text)
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=findings,
        impression=impression,
        num_tokens=len(answer.token_ids),
        finished=answer.finished,
        cue=visual.cue,
    )
