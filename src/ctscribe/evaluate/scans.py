"""From rows to scans: one reference, one prediction, each counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from ctscribe.errors import CtscribeError
from ctscribe.evaluate.baselines import Report
from ctscribe.reports.labeler import label_report
from ctscribe.reports.sections import join_report
from ctscribe.rows import PredictionRow, StudyRow
from ctscribe.types import Labels


@final
@dataclass(frozen=True)
class Answers:
    """What a system wrote, in the order of the references."""

    texts: tuple[str, ...]
    labels: tuple[Labels, ...]


def scored_text(findings: str, impression: str) -> str:
    """The text whose words are compared: both sections without their headings."""
    return " ".join(part for part in (findings.strip(), impression.strip()) if part)


@lru_cache(maxsize=1 << 14)
def read_labels(findings: str, impression: str = "") -> Labels:
    """Labels of a report by the labeler; template reports recur, so they are read once."""
    return label_report(join_report(findings, impression))


def one_row_per_scan(studies: Sequence[StudyRow]) -> list[StudyRow]:
    """Keeps the first reconstruction of each scan, ordered by scan.

    Raises:
        CtscribeError: ``E_SCAN`` when two rows of a scan differ in patient, report or labels.
    """
    kept: dict[str, StudyRow] = {}
    for study in sorted(studies, key=lambda row: (row.scan_id, row.volume_name)):
        first = kept.setdefault(study.scan_id, study)
        for field in ("patient_id", "findings", "impression", "labels"):
            if getattr(first, field) != getattr(study, field):
                raise CtscribeError(
                    "E_SCAN",
                    f"volumes of one scan must share its {field}, but {first.volume_name} and "
                    f"{study.volume_name} differ; mend the reports or labels file and prepare "
                    "again",
                )
    return list(kept.values())


def as_reports(studies: Sequence[StudyRow]) -> list[Report]:
    """The reference report of each study; labels are read from the text where none are given."""
    return [
        Report(
            study.scan_id,
            study.patient_id,
            scored_text(study.findings, study.impression),
            study.labels
            if study.labels is not None
            else read_labels(study.findings, study.impression),
        )
        for study in studies
    ]


def match_predictions(
    predictions: Sequence[PredictionRow], references: Sequence[Report]
) -> tuple[Answers, list[str]]:
    """Puts predictions in the order of the references; a missing one is an empty report.

    Returns:
        The answers, and the names of the scans nobody wrote a report for.

    Raises:
        CtscribeError: ``E_PREDICTION`` for a scan that is unknown, written twice with different
            words, or attributed to another patient.
    """
    written: dict[str, PredictionRow] = {}
    patients = {report.scan_id: report.patient_id for report in references}
    for row in predictions:
        if row.scan_id not in patients:
            raise _bad_prediction(row, "is not among the references")
        if row.patient_id != patients[row.scan_id]:
            raise _bad_prediction(row, "belongs to another patient in the references")
        first = written.setdefault(row.scan_id, row)
        if (first.findings, first.impression) != (row.findings, row.impression):
            raise _bad_prediction(row, "has two different reports")
    rows = [written.get(report.scan_id) for report in references]
    texts = [scored_text(row.findings, row.impression) if row else "" for row in rows]
    labels = [read_labels(row.findings, row.impression) if row else read_labels("") for row in rows]
    missing = [report.scan_id for report in references if report.scan_id not in written]
    return Answers(tuple(texts), tuple(labels)), missing


def _bad_prediction(row: PredictionRow, what: str) -> CtscribeError:
    return CtscribeError(
        "E_PREDICTION",
        f"each predicted scan must have one reference, but scan {row.scan_id} {what}; "
        "give the predictions and the split they were written for",
    )
