"""The studies a scoreboard shows: two look-alikes, and the worst."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ctscribe import __version__
from ctscribe.board.studies import WindowSet, look_alikes, show_study
from ctscribe.export.comparison import NUM_WORST, Comparison, compare_reports, find_worst
from ctscribe.export.scoreboard import ShownStudy, StudyGroup
from ctscribe.rows import PredictionRow, ReportedRow, StudyRow

ALIKE = (
    "Of all pairs of scans of different patients, the hundredth part whose references share "
    "most word pairs; of these, the two whose slices differ most in grey. Reports like these are "
    "why a model can score well without looking."
)
"""How the look-alike reports are chosen."""


def study_groups(
    scans: Sequence[StudyRow],
    written: Sequence[PredictionRow],
    prepared_dir: Path,
    windows: WindowSet,
) -> list[StudyGroup]:
    """The paper's Figure 2 in our scans, and the studies with the lowest F1.

    Args:
        scans: One row per scan.
        written: What one system wrote for them.
        prepared_dir: Holds their frames.
        windows: In which they were made.
    """
    compared = _compare(scans, written)
    by_scan = {study.scan_id: study for study in scans}
    groups = []
    if pair := look_alikes(scans, prepared_dir):
        groups.append(("Look-alike reports", ALIKE, [compared[study.scan_id] for study in pair]))
    groups.append(_worst(compared))
    return [
        StudyGroup(
            title,
            note,
            tuple(show_study(each, by_scan[each.study], prepared_dir, windows) for each in chosen),
        )
        for title, note, chosen in groups
    ]


def worst_texts(scans: Sequence[ReportedRow], written: Sequence[PredictionRow]) -> StudyGroup:
    """The studies with the lowest F1, of which there is nothing but text."""
    title, note, chosen = _worst(_compare(scans, written))
    return StudyGroup(title, note, tuple(map(ShownStudy, chosen)))


def board_facts(scans: Sequence[ReportedRow], shown: str) -> list[str]:
    """Short texts under the title; ``shown`` says whose reports the studies are."""
    patients = len({study.patient_id for study in scans})
    return [
        f"{len(scans)} scans of {patients} patients",
        shown,
        f"ctscribe {__version__}",
        datetime.now(UTC).strftime("%Y-%m-%d"),
    ]


def _worst(compared: Mapping[str, Comparison]) -> tuple[str, str, list[Comparison]]:
    worst = find_worst(compared.values(), NUM_WORST)
    return f"The {len(worst)} worst studies", "Lowest F1 over the 18 findings.", worst


def _compare(
    scans: Sequence[ReportedRow], written: Sequence[PredictionRow]
) -> Mapping[str, Comparison]:
    """Every scan's reference beside what was written for it; nothing where nothing was."""
    rows = {row.scan_id: row for row in written}
    return {
        study.scan_id: compare_reports(
            study.scan_id,
            reference=_text(study),
            prediction=_text(rows.get(study.scan_id)),
            labels=study.labels,
        )
        for study in scans
    }


def _text(row: ReportedRow | PredictionRow | None) -> str:
    return "" if row is None else f"{row.findings}\n{row.impression}".strip()
