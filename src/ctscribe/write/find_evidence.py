"""The evidence stage: a run's written reports in, ``evidence.jsonl`` out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, sha256_of_file
from ctscribe.base.locks import one_writer_of
from ctscribe.base.rows import PredictionRow, StudyRow, append_row, read_rows, write_rows
from ctscribe.base.runs import claim
from ctscribe.data.prepared import Prepared
from ctscribe.write.evidence import EvidenceRow
from ctscribe.write.token_planes import ShownSlices
from ctscribe.write.writer import ReportWriter


def find_evidence(
    writer: ReportWriter,
    prepared: Prepared,
    predictions_path: Path,
    out_path: Path,
    *,
    limit: int | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> list[EvidenceRow]:
    """Writes ``evidence.jsonl``: for every written report, the evidence of its sentences.

    An interrupted call can be repeated: reports that are in the file are skipped. With ``limit``
    only the first reports are read. ``progress`` is called with (reports done, all reports).

    Raises:
        CtscribeError: ``E_MISSING`` without predictions, ``E_PREDICTION`` for one of a study
            that is not prepared, ``E_PREPARED``, ``E_RUN_EXISTS`` when the file rests on others,
            ``E_BUSY``.
    """
    prepared.require(writer.recipe)
    matched = match_predictions(prepared, predictions_path)
    made_of = {
        "weights_sha256": writer.weights_sha256,
        "predictions_sha256": sha256_of_file(predictions_path),
        "scans_sha256": prepared.sha256([study for _, study in matched]),
    }
    matched = matched[:limit]
    with one_writer_of(out_path):
        claim(out_path, made_of)
        done = read_rows(out_path, EvidenceRow, partial=True) if out_path.exists() else []
        write_rows(out_path, done)
        known = {row.scan_id for row in done}
        missing = [(row, study) for row, study in matched if row.scan_id not in known]
        progress(len(matched) - len(missing), len(matched))
        if missing:
            store = writer.features(prepared, [study for _, study in missing])
        for number, (row, study) in enumerate(missing, len(matched) - len(missing) + 1):
            report = writer.read(row.findings, row.impression)
            visual = replace(store.visual(study), cue=row.cue)
            shown = ShownSlices.of_study(prepared, study)
            found = EvidenceRow(
                scan_id=row.scan_id,
                patient_id=row.patient_id,
                volume_name=row.volume_name,
                sentences=writer.evidence(report, visual, shown),
            )
            append_row(out_path, found)
            progress(number, len(matched))
        by_scan = {row.scan_id: row for row in read_rows(out_path, EvidenceRow)}
        return [by_scan[row.scan_id] for row, _ in matched]


def match_predictions(
    prepared: Prepared, predictions_path: Path
) -> Sequence[tuple[PredictionRow, StudyRow]]:
    """Pairs each prediction of a run with its prepared study.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_PREDICTION``.
    """
    predictions = read_rows(predictions_path, PredictionRow)
    for row in predictions:
        if row.volume_name not in prepared.by_name:
            raise CtscribeError(
                "E_PREDICTION",
                f"each predicted scan must be prepared, but {row.volume_name} is not in "
                f"{prepared.folder}",
            )
    return [(row, prepared.by_name[row.volume_name]) for row in predictions]
