"""The stage from prepared scans to ``predictions.jsonl``: one report per scan, resumable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.rows import PredictionRow, StudyRow, write_rows
from ctscribe.base.types import Split
from ctscribe.base.workers import ALONE, Share, wait_until_whole
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.text.sections import split_report
from ctscribe.text.template import write_template
from ctscribe.write.calibration import FILE
from ctscribe.write.cue_table import CueTable
from ctscribe.write.prediction_file import PredictionFile, open_prediction_file
from ctscribe.write.writer import ReportWriter, View


def generate_template(
    writer: ReportWriter, prepared: Prepared, split: Split, out_path: Path
) -> list[PredictionRow]:
    """Writes stock sentences for the findings whose calibrated probability reaches the threshold.

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
    return report_row(study, write_template(tuple(int(each) for each in stated)), 0, True)


def generate(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_path: Path,
    *,
    cues: CueTable | None = None,
    share: Share = ALONE,
    progress: ProgressCallback = lambda done, total: None,
) -> list[PredictionRow]:
    """Writes ``predictions.jsonl``: one row per scan, from its first prepared reconstruction.

    An interrupted call can be repeated: scans that are in the file are skipped. For a run trained
    with cues, ``cues`` replaces those of the finding queries. With a ``share`` this process writes
    only its batches, and the process that finishes last joins the parts (see `PredictionFile`).
    ``progress`` is called with (scans done, all scans) of this process.

    Returns:
        The rows in the order of the prepared studies; only those that exist so far, while other
        processes are still writing.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` when the split has no scan, ``E_PREPARED``, ``E_CUES``,
            ``E_RUN_EXISTS`` when the file was written otherwise, ``E_BUSY``.
    """
    with open_reports(writer, prepared, split, out_path, cues=cues, share=share) as file:
        missing = file.missing()
        progress(file.num_own - len(missing), file.num_own)
        if missing:
            shown = [study for batch in file.batches(missing) for study in batch]
            view = with_table_cues(writer.features(prepared, shown).visual, cues)
            write_scans(writer, file, view, progress=progress)
        return file.finish()


def generate_together(
    writer: ReportWriter, prepared: Prepared, split: Split, out_path: Path, share: Share
) -> list[PredictionRow]:
    """As `generate`, but waits until the other processes have written their shares.

    Raises:
        CtscribeError: As `generate`; ``E_SHARE`` where they write nothing for half an hour.
    """
    generate(writer, prepared, split, out_path, share=share)
    file = PredictionFile(out_path, prepared.scans(split, reported=False), share=share)
    wait_until_whole(out_path, lambda: len(file.scans) - len(file.rows()))
    return file.rows()


@contextmanager
def open_reports(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_path: Path,
    *,
    cues: CueTable | None,
    share: Share = ALONE,
) -> Iterator[PredictionFile]:
    """Opens the file of a split's reports, checking that it was begun with the same settings.

    Raises:
        CtscribeError: As `generate`.
    """
    prepared.require(writer.recipe)
    scans = prepared.scans(split, reported=False)
    with open_prediction_file(out_path, scans, writer.generate.batch_size, share) as file:
        writer.prepare_contrast(prepared)
        told = {"cues": cue_source(writer, cues), "scans_sha256": prepared.sha256(scans)}
        file.claim(writer.made_of() | told)
        yield file


def cue_source(writer: ReportWriter, cues: CueTable | None) -> list[str | float] | None:
    """What the cues of a file of reports depend on: a table, the queries, or None without cues."""
    if cues is not None:
        return [cues.sha256, cues.threshold]
    if not writer.recipe.model.cues or writer.calibration is None:
        return None
    return ["queries", writer.calibration.cue_threshold]


def with_table_cues(view: View, cues: CueTable | None) -> View:
    """A view that adds the cues of a table; the same view without a table."""
    if cues is None:
        return view
    return lambda study: replace(view(study), cue=cues.of(study.volume_name, study.scan_id))


def write_scans(
    writer: ReportWriter,
    file: PredictionFile,
    view: View,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> None:
    """Writes the missing reports of a file, from the visual inputs that ``view`` gives.

    ``progress`` is called with (scans done, all scans) after each batch.
    """
    missing = file.missing()
    num_missing = len(missing)
    for batch in file.batches(missing):
        num_missing -= file.append_missing(write_batch(writer, batch, view), missing)
        progress(file.num_own - num_missing, file.num_own)


def write_batch(writer: ReportWriter, batch: Sequence[StudyRow], view: View) -> list[PredictionRow]:
    """Writes the reports of these scans as one batch."""
    shown = [writer.with_cue(view(study)) for study in batch]
    answers = zip(batch, shown, writer.answers(shown), strict=True)
    return [answer_row(study, visual, answer) for study, visual, answer in answers]


def answer_row(study: StudyRow, visual: Visual, answer: Answer) -> PredictionRow:
    """`report_row` of the model's answer for a visual input."""
    sections = split_report(answer.text)
    return report_row(study, sections, len(answer.token_ids), answer.finished, visual.cue)


def report_row(
    study: StudyRow,
    sections: tuple[str, str],
    num_tokens: int | None,
    finished: bool | None,
    cue: tuple[str, ...] | None = None,
) -> PredictionRow:
    """A row of ``predictions.jsonl``; ``sections`` are (findings, impression)."""
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=sections[0],
        impression=sections[1],
        num_tokens=num_tokens,
        finished=finished,
        cue=cue,
    )
