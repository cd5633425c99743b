"""Matches references and predictions: one of each per scan, with the findings they state.

In: rows of references and predictions. Out: `ScanReport`s and, in their order, `Answers`, with
the findings that a `LabelSource` reads in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import AnyReported, PredictionRow, ReportedRow
from ctscribe.base.types import Labels
from ctscribe.measure.language import Profile
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import ReadFindings, label_reports
from ctscribe.text.sections import headed_report

Sections = tuple[str, str]
"""Findings and impression of a written report."""

NOTHING: Labels = (0,) * len(FINDINGS)
"""None of the findings."""


@final
@dataclass(frozen=True)
class ScanReport:
    """A reference report, once per scan."""

    scan_id: str
    patient_id: str
    findings: str
    impression: str
    labels: Labels
    whole: str | None = None
    """As `ReportedRow`'s."""
    header: tuple[tuple[str, str | float], ...] = ()
    """Known facts about the scan other than its voxels: age, sex, manufacturer."""

    @property
    def text(self) -> str:
        """Its words, without headings."""
        return scored_text(self.findings, self.impression)

    def compared(self, profile: Profile) -> str:
        """The text that a profile compares."""
        return compared_text(self.sections, self.whole, profile)

    @property
    def sections(self) -> Sections:
        """As a system would have written it."""
        return self.findings, self.impression


@final
@dataclass(frozen=True)
class Answers:
    """A system's reports, in the order of the references."""

    sections: tuple[Sections, ...]
    labels: tuple[Labels, ...]
    wholes: tuple[str | None, ...] | None = None
    """As `PredictionRow`'s, of each; None where no report has one."""

    @property
    def texts(self) -> list[str]:
        """Their words, without headings."""
        return [scored_text(*sections) for sections in self.sections]

    def compared(self, profile: Profile) -> list[str]:
        """The texts that a profile compares."""
        wholes = self.wholes or (None,) * len(self.sections)
        return [
            compared_text(sections, whole, profile)
            for sections, whole in zip(self.sections, wholes, strict=True)
        ]

    @property
    def labelled_texts(self) -> list[str]:
        """The texts that findings, sides and sizes are read from."""
        return [labelled_text(*sections) for sections in self.sections]


@final
@dataclass(frozen=True)
class LabelSource:
    """A reader of findings, and its name in signatures."""

    name: str
    """E.g. ``rules`` or ``radbert``."""
    read: ReadFindings

    def labels(self, texts: Sequence[str]) -> list[Labels]:
        """The findings of each text. Each distinct text is read once; an empty one has none."""
        distinct = [text for text in dict.fromkeys(texts) if text]
        stated = self.read(distinct)
        if stated.shape != (len(distinct), len(FINDINGS)):
            raise ValueError(f"{self.name} must give {len(FINDINGS)} findings for each text")
        known = {
            text: tuple(int(label) for label in row)
            for text, row in zip(distinct, stated, strict=True)
        }
        return [known.get(text, NOTHING) for text in texts]


RULES = LabelSource("rules", label_reports)
"""The rule labeler."""


def as_reports(studies: Sequence[ReportedRow], source: LabelSource = RULES) -> list[ScanReport]:
    """The reference report of each study; labels are read from the text where none are given."""
    bare = [study for study in studies if study.labels is None]
    read = source.labels([labelled_text(study.findings, study.impression) for study in bare])
    labels = {study.volume_name: row for study, row in zip(bare, read, strict=True)}
    return [
        ScanReport(
            study.scan_id,
            study.patient_id,
            study.findings,
            study.impression,
            labels[study.volume_name] if study.labels is None else study.labels,
            study.whole,
            _header(study),
        )
        for study in studies
    ]


def _header(study: ReportedRow) -> tuple[tuple[str, str | float], ...]:
    # without the volume's grid: tables lack it, and they must score as prepared studies do
    told = {"age": study.age_years, "sex": study.sex, "manufacturer": study.manufacturer}
    return tuple((name, value) for name, value in told.items() if value is not None)


def one_row_per_scan(studies: Sequence[AnyReported]) -> list[AnyReported]:
    """Keeps the first reconstruction of each scan, ordered by scan.

    Raises:
        CtscribeError: ``E_SCAN`` when two rows of a scan differ in patient, report or labels.
    """
    kept: dict[str, AnyReported] = {}
    for study in sorted(studies, key=lambda row: (row.scan_id, row.volume_name)):
        first = kept.setdefault(study.scan_id, study)
        for field in ("patient_id", "findings", "impression", "labels"):
            if getattr(first, field) != getattr(study, field):
                raise CtscribeError(
                    "E_SCAN",
                    f"volumes of one scan must share its {field}, but {first.volume_name} and "
                    f"{study.volume_name} differ",
                )
    return list(kept.values())


def match_predictions(
    predictions: Sequence[PredictionRow],
    references: Sequence[ScanReport],
    source: LabelSource = RULES,
) -> tuple[Answers, list[str]]:
    """Puts predictions in the order of the references; a missing one is an empty report.

    Returns:
        The answers, and the ids of the scans nobody wrote a report for.

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
    missing = [report.scan_id for report in references if report.scan_id not in written]
    in_order = [written.get(report.scan_id) for report in references]
    sections = [(row.findings, row.impression) if row else ("", "") for row in in_order]
    wholes = tuple(row.whole if row else None for row in in_order)
    return replace(read_answers(sections, source), wholes=wholes), missing


def _bad_prediction(row: PredictionRow, what: str) -> CtscribeError:
    return CtscribeError(
        "E_PREDICTION",
        f"each predicted scan must have one reference, but scan {row.scan_id} {what}",
    )


def read_answers(written: Sequence[Sections], source: LabelSource = RULES) -> Answers:
    """Texts and stated findings of written reports; both sections empty means no report."""
    labels = source.labels([labelled_text(*sections) for sections in written])
    return Answers(tuple(written), tuple(labels))


def scored_text(findings: str, impression: str) -> str:
    """Both sections without their headings, by a space."""
    return " ".join(part for part in (findings.strip(), impression.strip()) if part)


def compared_text(sections: Sections, whole: str | None, profile: Profile) -> str:
    """The text that a profile compares: the words alone, or what CT-RATE's challenge would read.

    Its scorer reads reports as they stand, with the headings and the spaces that they have; of two
    sections it is given `headed_report`.
    """
    if profile != "vlm3d":
        return scored_text(*sections)
    return headed_report(*sections) if whole is None else whole


def labelled_text(findings: str, impression: str) -> str:
    """The text a label source reads; the sections stand apart, so that no sentence joins them."""
    return "\n".join(part for part in (findings.strip(), impression.strip()) if part)


def count_scans(studies: Sequence[ReportedRow]) -> dict[str, int]:
    """Counts for a score's ``n``; there must be one row per scan."""
    return {
        "scans": len(studies),
        "patients": len({study.patient_id for study in studies}),
        "labels_read_from_text": sum(study.labels is None for study in studies),
    }
