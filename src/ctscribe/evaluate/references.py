"""What predictions are scored against: prepared studies, or reports out of tables alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ctscribe.errors import CtscribeError
from ctscribe.evaluate.reference_tables import TablePaths, read_reference_tables
from ctscribe.pairs.splits import Split, studies_of
from ctscribe.rows import ReportedRow, StudyRow, read_rows


@final
@dataclass(frozen=True)
class References:
    """Reports to score against, and where the blind baselines choose theirs."""

    studies: Sequence[ReportedRow]
    """To be scored; reconstructions of one scan may be several."""
    training: Sequence[ReportedRow] | None
    """None: no training reports are known; see `baselines.choose_reports`."""
    split: Split | None
    """The studies'; None for tables, of which all rows are scored."""
    prepared_dir: Path | None = None
    """Where their frames lie, if there are any."""
    left_out: frozenset[str] = frozenset()
    """Names of volumes without findings in their report, which are not scored."""
    without_patient: int = 0
    """Scans that name no patient, so each counts as a patient of its own."""

    def facts(self) -> dict[str, int]:
        """What belongs beside the number of scans."""
        return {
            "reports_left_out": len(self.left_out),
            "scans_without_patient": self.without_patient,
        }


def prepared_references(prepared_dir: Path, split: Split, validation_fraction: float) -> References:
    """The studies of a split of what `prepare` wrote; the baselines know the training split.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_ROW``.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    scored, training = (studies_of(studies, name, validation_fraction) for name in (split, "train"))
    return References(scored, training, split, prepared_dir)


def table_references(
    paths: TablePaths, training_paths: TablePaths | None, validation_fraction: float
) -> References:
    """The reports of tables, all of them scored; no volume is needed.

    Of the training reports the patients that `prepare`'s validation split would take are left
    out, so that CT-RATE's own tables give the baselines that a prepared CT-RATE gives.

    Args:
        paths: Reports to score against.
        training_paths: Reports the baselines choose from; None where there are none.
        validation_fraction: Expected share of training patients left out.

    Raises:
        CtscribeError: As `read_reference_tables`, and ``E_EVALUATE`` when a patient is in both.
    """
    scored = read_reference_tables(paths, "valid")
    facts = None, None, scored.left_out, scored.num_without_patient
    if training_paths is None:
        return References(scored.rows, None, *facts)
    training = read_reference_tables(training_paths, "train").rows
    both = {row.patient_id for row in scored.rows} & {row.patient_id for row in training}
    if both:
        raise CtscribeError(
            "E_EVALUATE",
            f"training reports must be of other patients than the references, but {len(both)} "
            f"patients of {paths.reports} are in {training_paths.reports} too",
        )
    return References(scored.rows, studies_of(training, "train", validation_fraction), *facts)
