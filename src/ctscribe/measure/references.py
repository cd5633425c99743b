"""What predictions are scored against: prepared studies, or reports out of tables alone.

In: what `prepare` wrote, or CSV files of reports, labels and metadata. Out: `References`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_json
from ctscribe.base.outside_text import names_nothing, nfc
from ctscribe.base.recipe import SplitsConfig
from ctscribe.base.rows import ReportedRow, sha256_of_rows
from ctscribe.base.tables import Cells
from ctscribe.base.types import SourceSplit, Split
from ctscribe.data.manifest import meaning_of_splits, parse_split, volume_names
from ctscribe.data.prepared import Prepared, split_of
from ctscribe.measure.predictions import Noticed, ct_rate_parts
from ctscribe.measure.shapes import read_json_reports
from ctscribe.text.findings import FINDINGS
from ctscribe.text.report_tables import (
    ReportTable,
    read_columns,
    read_report_table,
    report_fields,
    volume_stem,
)


@final
@dataclass(frozen=True)
class References:
    """Reports to score against, and where the blind baselines choose theirs."""

    studies: Sequence[ReportedRow]
    """To be scored; reconstructions of one scan may be several."""
    training: Sequence[ReportedRow] | None = None
    """None: no training reports are known; see `baselines.write_baselines`."""
    split: Split | None = None
    """The studies'; None for tables, of which all rows are scored."""
    prepared: Prepared | None = None
    """Holds their frames, if there are any."""
    left_out: frozenset[str] = frozenset()
    """Names, without suffix, of volumes whose report has no findings; they are not scored."""
    without_patient: int = 0
    """Scans whose patient neither a column nor a name of CT-RATE's kind states: each counts as a
    patient of its own."""
    special_tokens: int = 0
    """Reports that held special tokens of a language model, which were taken away."""

    def sha256(self) -> str:
        """Hash of the studies and of the training reports, by which scores name their inputs."""
        both = self.studies, self.training or ()
        wholes = [row.whole for row in self.studies if row.whole is not None]
        return sha256_of_json([*(sha256_of_rows(rows) for rows in both), *wholes])

    def facts(self) -> dict[str, int]:
        """What belongs beside the number of scans."""
        return {
            "reports_left_out": len(self.left_out),
            "scans_without_patient": self.without_patient,
            "references_with_special_tokens": self.special_tokens,
        }


def prepared_references(prepared: Prepared, split: Split) -> References:
    """The studies of a split of what `prepare` wrote; the baselines know the training split.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_ROW``.
    """
    return References(prepared.split(split), prepared.split("train"), split, prepared)


@final
@dataclass(frozen=True)
class TablePaths:
    """Files that say the same names.

    Attributes:
        reports: See `read_report_table`, or JSON as of predictions. Further columns are read where
            present: ``patient``, ``scan``, ``split`` (rows of the other one are passed over), the
            18 findings, ``manufacturer``, ``sex`` and ``age``, or CT-RATE's ``Manufacturer``,
            ``PatientSex`` and ``PatientAge``.
        labels: The 18 findings, 0 or 1, for every report; without, those beside the reports, or
            none.
        metadata: Scanner, sex and age, as beside the reports; rows may lack.
    """

    reports: Path
    labels: Path | None = None
    metadata: Path | None = None


def table_references(
    paths: TablePaths, training_paths: TablePaths | None, splits: SplitsConfig
) -> References:
    """The reports of tables, all of them scored; no volume is needed.

    Of the training reports, from which the baselines choose, the patients that `prepare`'s
    validation split would take are left out, so that CT-RATE's own tables give the baselines that
    a prepared CT-RATE gives.

    Raises:
        CtscribeError: As `read_reference_tables`, and ``E_EVALUATE`` when a patient is in both.
    """
    scored = read_reference_tables(paths, "valid")
    if training_paths is None:
        return scored
    known = read_reference_tables(training_paths, "train")
    kept = [row for row in known.studies if split_of(row.patient_id, "train", splits) == "train"]
    return replace(put_together(scored, known), training=kept)


def put_together(scored: References, known: References | None) -> References:
    """References whose baselines choose from what is ``known``, if anything is.

    Raises:
        CtscribeError: ``E_EVALUATE`` when a patient is in both.
    """
    if known is None:
        return scored
    both = {row.patient_id for row in scored.studies} & {row.patient_id for row in known.studies}
    if both:
        raise CtscribeError(
            "E_EVALUATE",
            f"training reports must be of other patients than the references, but {len(both)} "
            "patients of the references are in the training reports too",
        )
    return replace(scored, training=known.studies)


def read_reference_tables(paths: TablePaths, split: SourceSplit) -> References:
    """Reads reports with their labels and metadata; see `reference_rows`.

    Raises:
        CtscribeError: As `read_report_table` and `reference_rows`.
    """
    return reference_rows(_report_table(paths.reports), paths, split)


def _report_table(path: Path) -> ReportTable:
    """As `read_report_table`, and of JSON such as CT-CHAT's ground truth."""
    if path.suffix.lower() not in (".json", ".jsonl"):
        return read_report_table(path, allow_empty=True)
    pairs, _ = read_json_reports(path)
    names, texts = [name for name, _ in pairs], [(text,) for _, text in pairs]
    return ReportTable("VolumeName", ("report",), tuple(names), tuple(texts), ({},) * len(pairs))


def reference_rows(table: ReportTable, paths: TablePaths, split: SourceSplit) -> References:
    """Reports of a table with their labels and metadata, their texts spaced as by `prepare`.

    Patient and scan are those of the columns ``patient`` and ``scan``, else those of CT-RATE's
    names; any other name is a scan, and a patient, of its own. Of a table with the column
    ``split`` the rows of ``split`` are read; of another all are, and will say so.

    Raises:
        CtscribeError: As `read_columns`; ``E_COLUMN``, ``E_DUPLICATE``, ``E_NO_LABELS``,
            ``E_LABELS`` or ``E_METADATA`` naming the report.
    """
    labels, metadata = _by_stem(paths.labels, FINDINGS), _by_stem(paths.metadata, ())
    rows, left_out, nameless, noticed = dict[str, ReportedRow](), set[str](), set[str](), Noticed()
    # a manifest's volumes are paths, and prepared under the names of their scans
    prepared_as = volume_names(nfc(cells.get("scan", "")) for cells in table.others)
    splits = meaning_of_splits({cells.get("split", split) for cells in table.others})
    for name, texts, beside in zip(table.names, table.texts, table.others, strict=True):
        source_split, fixed = parse_split(name[:80], beside.get("split", split), splits)
        if source_split != split or fixed == "validation":
            continue
        patient_id, scan_id = _patient_and_scan(paths.reports, name, beside)
        volume_name = _as_prepared(table, name, beside, prepared_as)
        about = {**(metadata.get(volume_stem(name)) or metadata.get(scan_id, {})), **beside}
        stated = (labels.get(volume_stem(name)) or labels.get(scan_id)) if paths.labels else beside
        cleaned = noticed.without_special_tokens(texts)
        try:
            fields = report_fields(name[:80], cleaned, about, stated)
        except CtscribeError as error:
            if error.code != "E_EMPTY_REPORT":
                raise
            left_out.add(volume_stem(volume_name))
            continue
        row = ReportedRow(
            volume_name=volume_name,
            patient_id=patient_id or scan_id,
            scan_id=scan_id,
            source_split=split,
            whole=cleaned[0] if len(cleaned) == 1 else None,
            **fields,
        )
        if rows.setdefault(volume_stem(volume_name), row) is not row:
            raise _repeated(paths.reports, name)
        if patient_id is None:
            nameless.add(scan_id)
    return References(
        list(rows.values()),
        left_out=frozenset(left_out),
        without_patient=len(nameless),
        special_tokens=noticed.special_tokens,
    )


def _as_prepared(
    table: ReportTable, name: str, cells: Cells, prepared_as: Mapping[str, str]
) -> str:
    scan = nfc(cells.get("scan", ""))
    return prepared_as[scan] if scan and table.key == "volume" else name


def _patient_and_scan(path: Path, name: str, cells: Cells) -> tuple[str | None, str]:
    """A volume's patient, if that is known, and its scan."""
    for column in ("patient", "scan"):
        if names_nothing(cells.get(column, "not asked for")):
            raise CtscribeError(
                "E_CSV",
                f"{path} must state the {column} of every report, but that of {name[:80]} is "
                f"{cells[column] or 'empty'}",
            )
    parts = ct_rate_parts(name)
    patient_id = cells.get("patient") or (parts.patient_id if parts else None)
    return patient_id, cells.get("scan") or (parts.scan_id if parts else volume_stem(name))


def _by_stem(path: Path | None, required: Sequence[str]) -> dict[str, Cells]:
    if path is None:
        return {}
    found: dict[str, Cells] = {}
    for name, cells in read_columns(path, required).items():
        if found.setdefault(volume_stem(name), cells) is not cells:
            raise _repeated(path, name)
    return found


def _repeated(path: Path, name: str) -> CtscribeError:
    return CtscribeError(
        "E_DUPLICATE",
        f"{path} must name each volume once, but {name[:80]!r} differs from an earlier row only "
        "in folder or suffix",
    )
