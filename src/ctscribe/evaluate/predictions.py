"""Predictions of any format, put to the studies they were written for."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.evaluate.formats import Written, read_written, volume_stem
from ctscribe.rows import PredictionRow, ReportedRow, read_rows

_RECONSTRUCTION = re.compile(r"_\d+\Z")
_NUM_NAMED = 3


def read_predictions(
    path: Path, studies: Sequence[ReportedRow], left_out: Collection[str] = ()
) -> list[PredictionRow]:
    """Reads predictions, ours or another tool's, as rows of the studies they answer.

    Others name volumes, of which a scan may have several, each with a report of its own. The
    report of the prepared volume is taken; without one, that of the first reconstruction.

    Args:
        path: See `evaluate.formats`; our own ``.jsonl`` comes back as it is.
        studies: The prepared studies; a name is a volume's, its scan's, or that of another
            reconstruction of the scan.
        left_out: Names, without suffix, of volumes that are not scored: theirs are passed over.

    Raises:
        CtscribeError: As `read_written`; ``E_PREDICTION`` for names that belong to no study.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        rows = read_rows(path, PredictionRow)
        return [row for row in rows if volume_stem(row.volume_name) not in left_out]
    passed_over = {*left_out, *(_RECONSTRUCTION.sub("", name) for name in left_out)}
    by_volume = {volume_stem(study.volume_name): study for study in studies}
    by_scan = {study.scan_id: study for study in reversed(studies)}
    chosen: dict[str, tuple[int, str, Written, ReportedRow]] = {}
    unknown = []
    for report in read_written(path):
        same_scan = by_scan.get(report.name) or by_scan.get(_RECONSTRUCTION.sub("", report.name))
        study = by_volume.get(report.name) or same_scan
        if study is None and report.name in passed_over:
            continue
        if study is None:
            unknown.append(report.name)
            continue
        rank = (0 if report.name in by_volume else 1, report.name)
        chosen[study.scan_id] = min(
            chosen.get(study.scan_id, (*rank, report, study)),
            (*rank, report, study),
            key=lambda entry: entry[:2],
        )
    if unknown:
        named = ", ".join(name[:80] for name in unknown[:_NUM_NAMED])
        raise CtscribeError(
            "E_PREDICTION",
            f"every name in {path} must belong to one of the references, but {len(unknown)} do "
            f"not, such as {named}",
        )
    return [_row(report, study) for _, _, report, study in chosen.values()]


def _row(report: Written, study: ReportedRow) -> PredictionRow:
    return PredictionRow(
        scan_id=study.scan_id,
        patient_id=study.patient_id,
        volume_name=study.volume_name,
        findings=report.findings,
        impression=report.impression,
    )
