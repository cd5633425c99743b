"""What predictions are scored against: prepared studies, or reports out of tables alone."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import SplitsConfig
from ctscribe.base.rows import ReferenceRow, ReportedRow
from ctscribe.base.types import Labels, Split
from ctscribe.data.ct_rate import (
    VolumeName,
    parse_age_years,
    parse_labels,
    parse_volume_name,
)
from ctscribe.data.manifest import safe_name
from ctscribe.data.prepared import Prepared, split_of
from ctscribe.measure.predictions import volume_stem
from ctscribe.text.csv_tables import ReportTable, read_named_cells, read_report_table
from ctscribe.text.findings import FINDINGS
from ctscribe.text.sections import split_report

Cells = Mapping[str, str]

_AGE_YEARS = re.compile(r"\d{1,3}(\.\d+)?")


@final
@dataclass(frozen=True)
class TablePaths:
    """Files that say the same names.

    Attributes:
        reports: See `read_report_table`. Further columns are read where present: ``patient``,
            ``scan``, ``split`` (rows of the other one are passed over), the 18 findings,
            ``manufacturer``, ``sex`` and ``age``, or CT-RATE's ``Manufacturer``, ``PatientSex``
            and ``PatientAge``.
        labels: The 18 findings, 0 or 1, for every report; without, those beside the reports, or
            none.
        metadata: Scanner, sex and age, as beside the reports; rows may lack.
    """

    reports: Path
    labels: Path | None = None
    metadata: Path | None = None


@final
@dataclass(frozen=True)
class ReferenceTable:
    """What the tables say."""

    rows: list[ReferenceRow]
    left_out: frozenset[str]
    """Names, without suffix, of volumes whose report has no findings, as `prepare` leaves out."""
    num_without_patient: int
    """Scans whose patient neither a column nor a name of CT-RATE's kind states."""


def read_reference_tables(
    paths: TablePaths, source_split: Literal["train", "valid"], splits: SplitsConfig
) -> ReferenceTable:
    """Reads reports with their labels and metadata; texts are spaced as `prepare` spaces them.

    Patient and scan are those of the columns ``patient`` and ``scan``, else those of CT-RATE's
    names; any other name is a scan, and a patient, of its own.

    Args:
        paths: The files.
        source_split: Which rows of a table with the column ``split``; what the rows will say.
        splits: Which training patients are held out.

    Raises:
        CtscribeError: As `read_report_table`, `read_named_cells` and `reference_rows`.
    """
    table = read_report_table(paths.reports, allow_empty=True)
    return reference_rows(table, paths, source_split, splits)


def reference_rows(
    table: ReportTable,
    paths: TablePaths,
    source_split: Literal["train", "valid"],
    splits: SplitsConfig,
) -> ReferenceTable:
    """As `read_reference_tables`, of a table of reports that is read already.

    Raises:
        CtscribeError: As `read_named_cells`; ``E_COLUMN``, ``E_DUPLICATE``, ``E_NO_LABELS``,
            ``E_LABELS`` or ``E_METADATA`` naming the report.
    """
    _check_findings(paths.reports, table)
    labels, metadata = _by_stem(paths.labels, FINDINGS), _by_stem(paths.metadata, ())
    rows: dict[str, ReferenceRow] = {}
    left_out: set[str] = set()
    nameless: set[str] = set()
    for name, texts, beside in zip(table.names, table.cells, table.others, strict=True):
        findings, impression = _sections(texts)
        if _split(paths.reports, name, beside, source_split) != source_split:
            continue
        volume_name, patient_id, scan_id = _identity(paths.reports, table.key, name, beside)
        if not findings:
            left_out.add(volume_stem(volume_name))
            continue
        patient = patient_id or scan_id
        row = ReferenceRow(
            volume_name=volume_name,
            patient_id=patient,
            scan_id=scan_id,
            source_split=source_split,
            split=split_of(patient, source_split, splits),
            findings=findings,
            impression=impression,
            labels=_labels(paths, name, labels, beside),
            **_metadata(name, {**metadata.get(volume_stem(name), {}), **beside}),
        )
        if rows.setdefault(volume_stem(volume_name), row) is not row:
            raise _repeated(paths.reports, name)
        if patient_id is None:
            nameless.add(scan_id)
    return ReferenceTable(list(rows.values()), frozenset(left_out), len(nameless))


def _repeated(path: Path, name: str) -> CtscribeError:
    return CtscribeError(
        "E_DUPLICATE",
        f"{path} must name each volume once, but {name[:80]!r} differs from an earlier row only "
        "in folder or suffix",
    )


def _by_stem(path: Path | None, required: Sequence[str]) -> dict[str, dict[str, str]]:
    if path is None:
        return {}
    found: dict[str, dict[str, str]] = {}
    for name, cells in read_named_cells(path, required).items():
        if found.setdefault(volume_stem(name), cells) is not cells:
            raise _repeated(path, name)
    return found


def _check_findings(path: Path, table: ReportTable) -> None:
    columns = table.others[0].keys()
    lacking = [finding for finding in FINDINGS if finding not in columns]
    if 0 < len(lacking) < len(FINDINGS):
        raise CtscribeError(
            "E_COLUMN",
            f"{path} must have all 18 findings as columns or none, but lacks {lacking[0]!r}",
        )


def _split(path: Path, name: str, cells: Cells, asked: str) -> str:
    found = cells.get("split", asked)
    if found not in ("train", "valid"):
        raise CtscribeError(
            "E_COLUMN",
            f"split in {path} must be train or valid, but is {found[:20]!r} for {name[:80]}",
        )
    return found


def _sections(texts: Sequence[str]) -> tuple[str, str]:
    findings, impression = texts if len(texts) == 2 else split_report(texts[0])
    return " ".join(findings.split()), " ".join(impression.split())


def _identity(path: Path, key: str, name: str, cells: Cells) -> tuple[str, str | None, str]:
    """The volume's name, its patient if that is known, and its scan."""
    for column in ("patient", "scan"):
        if cells.get(column) == "":
            raise CtscribeError(
                "E_CSV",
                f"{path} must state the {column} of every report, but that of {name[:80]} is empty",
            )
    parts = _parts(name)
    scan = cells.get("scan")
    # A manifest's volumes are paths, and prepared under the names of their scans.
    volume_name = safe_name(scan) if scan and key == "volume" else name
    patient_id = cells.get("patient") or (parts.patient_id if parts else None)
    return volume_name, patient_id, scan or (parts.scan_id if parts else volume_stem(name))


def _parts(name: str) -> VolumeName | None:
    """A volume's or a scan's name of CT-RATE's kind, taken apart."""
    for suffix in (".nii.gz", "_1.nii.gz"):
        with suppress(CtscribeError):
            return parse_volume_name(volume_stem(name) + suffix)
    return None


def _labels(
    paths: TablePaths, name: str, labels: Mapping[str, Cells], beside: Cells
) -> Labels | None:
    if paths.labels is None and FINDINGS[0] not in beside:
        return None
    cells = beside if paths.labels is None else labels.get(volume_stem(name))
    if cells is None:
        raise CtscribeError(
            "E_NO_LABELS",
            f"{name[:80]} must have a row in {paths.labels}, but has none",
        )
    return parse_labels({**cells, "VolumeName": name[:80]})


def _metadata(name: str, cells: Cells) -> dict[str, Any]:
    age = cells.get("age", "")
    if age and not _AGE_YEARS.fullmatch(age):
        raise CtscribeError(
            "E_METADATA",
            f"{name[:80]} must have its age in years, but {age[:20]!r} was found",
        )
    age_years = float(age) if age else parse_age_years(cells.get("PatientAge", ""))
    return {
        "manufacturer": cells.get("Manufacturer") or cells.get("manufacturer") or None,
        "sex": cells.get("PatientSex") or cells.get("sex") or None,
        "age_years": age_years,
    }


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
    prepared: Prepared | None = None
    """Holds their frames, if there are any."""
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


def prepared_references(prepared: Prepared, split: Split) -> References:
    """The studies of a split of what `prepare` wrote; the baselines know the training split.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_ROW``.
    """
    return References(prepared.split(split), prepared.split("train"), split, prepared)


def table_references(
    paths: TablePaths, training_paths: TablePaths | None, splits: SplitsConfig
) -> References:
    """The reports of tables, all of them scored; no volume is needed.

    Of the training reports the patients that `prepare`'s validation split would take are left
    out, so that CT-RATE's own tables give the baselines that a prepared CT-RATE gives.

    Args:
        paths: Reports to score against.
        training_paths: Reports the baselines choose from; None where there are none.
        splits: Which training patients are left out.

    Raises:
        CtscribeError: As `read_reference_tables`, and ``E_EVALUATE`` when a patient is in both.
    """
    scored = read_reference_tables(paths, "valid", splits)
    if training_paths is None:
        return put_together(scored, None)
    known = read_reference_tables(training_paths, "train", splits)
    training = [row for row in known.rows if row.split == "train"]
    return replace(put_together(scored, known), training=training)


def put_together(scored: ReferenceTable, known: ReferenceTable | None) -> References:
    """References of tables that are read already.

    Args:
        scored: Reports to score against.
        known: Reports the baselines choose from; None where there are none.

    Raises:
        CtscribeError: ``E_EVALUATE`` when a patient is in both.
    """
    facts = None, None, scored.left_out, scored.num_without_patient
    if known is None:
        return References(scored.rows, None, *facts)
    both = {row.patient_id for row in scored.rows} & {row.patient_id for row in known.rows}
    if both:
        raise CtscribeError(
            "E_EVALUATE",
            f"training reports must be of other patients than the references, but {len(both)} "
            "patients of the references are in the training reports too",
        )
    return References(scored.rows, known.rows, *facts)
