"""Tables of reports → their texts, and the fields of a report and its patient.

All readers of reports use it: CT-RATE's tables, manifests of own scans, references and predictions.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import nfc, plain_text, without_placeholder
from ctscribe.base.rows import MAX_AGE_YEARS
from ctscribe.base.tables import Cells, CellTable, check_columns, read_csv, tell_rows
from ctscribe.base.types import Labels, Sex
from ctscribe.text.findings import FINDINGS
from ctscribe.text.sections import split_report

KEYS = ("VolumeName", "AccessionNo", "volume")
"""Columns that can name a report; the first of them in a table is used."""
TEXTS = ("report_text", "report", "generated_report", "prediction", "text")
"""Columns, and keys of JSON, that can hold a report."""
_SECTIONS = (("Findings_EN", "Impressions_EN"), ("findings", "impression"))
_SUFFIXES = frozenset({".gz", ".nii", ".mha", ".mhd", ".npz", ".npy"})
_LABEL = re.compile(r"(?P<no>0+(?:\.0*)?|false)|1(?:\.0*)?|true", re.IGNORECASE)
_LONGEST_COLUMN = 60
_MANUFACTURER = ("Manufacturer", "manufacturer")
_SEXES: dict[str, Sex] = {"F": "F", "M": "M", "O": "O"}
_UNITS_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}


def volume_stem(name: str) -> str:
    """A volume's name in NFC without folder and suffixes, such as ``valid_1_a_1``."""
    path = PurePosixPath(nfc(name.strip()))
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    return path.name or name


@final
@dataclass(frozen=True)
class ReportTable:
    """Reports with their names, in the order of the file."""

    key: str
    """One of `KEYS`."""
    columns: tuple[str, ...]
    """The column of the whole report, or those of Findings and Impression."""
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    """For each report the cells of ``columns``, unchanged but for placeholders, which are empty."""
    others: tuple[Cells, ...]
    """For each report the cells of all further columns, stripped."""


def read_report_table(path: Path, *, allow_empty: bool = False) -> ReportTable:
    """Reads a CSV of reports.

    Args:
        path: A table with ``VolumeName`` or ``AccessionNo`` (``volume`` for own data), and either
            one text column (``report_text``, ``report``, ``generated_report``, ``prediction``,
            ``text``, or the only other column whatever its name) or ``Findings_EN`` and
            ``Impressions_EN`` (``findings`` and ``impression``). Cells may hold line breaks.
            Two texts, such as a prediction beside its reference, are refused.
        allow_empty: Whether reports may be empty.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, ``E_ENCODING``, ``E_CSV``, ``E_COLUMN``,
            ``E_DUPLICATE`` or ``E_EMPTY_REPORT``, with the numbers of the rows.
    """
    return report_table(read_csv(path), allow_empty=allow_empty)


def report_table(table: CellTable, *, allow_empty: bool) -> ReportTable:
    """As `read_report_table`, from cells that have already been read.

    Raises:
        CtscribeError: ``E_CSV``, ``E_COLUMN``, ``E_DUPLICATE`` or ``E_EMPTY_REPORT``.
    """
    key, columns = _choose_columns(table)
    if not table.rows:
        raise CtscribeError(
            "E_EMPTY_REPORT", f"{table.path} must hold reports, but has only a header"
        )
    by_name = table.by_name(key)
    texts = [
        tuple(without_placeholder(cells[column]) for column in columns)
        for cells in by_name.values()
    ]
    empty = [number for number, parts in zip(table.rows, texts, strict=True) if not any(parts)]
    if empty and not allow_empty:
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"every report in {table.path} must have text, but {tell_rows(empty)} in "
            f"{' and '.join(columns)}",
        )
    others = [_stripped(cells, without=(key, *columns)) for cells in by_name.values()]
    return ReportTable(key, columns, tuple(by_name), tuple(texts), tuple(others))


def read_columns(path: Path, required: Sequence[str]) -> dict[str, Cells]:
    """Reads a CSV that is keyed as a table of reports: name → column → cell, stripped.

    Raises:
        CtscribeError: As `read_report_table`, but for ``E_EMPTY_REPORT``.
    """
    table = read_csv(path)
    key = next((name for name in KEYS if name in table.columns), KEYS[0])
    check_columns(table, (key, *required))
    return {name: _stripped(cells) for name, cells in table.by_name(key).items()}


def read_probabilities(path: Path) -> dict[str, tuple[float, ...]]:
    """Reads a CSV of the 18 findings' probabilities: name → values in the order of `FINDINGS`.

    Raises:
        CtscribeError: As `read_columns`, and ``E_LABEL_HEAD`` for a cell outside [0, 1].
    """
    return {
        name: tuple(_probability(path, name, finding, cells[finding]) for finding in FINDINGS)
        for name, cells in read_columns(path, FINDINGS).items()
    }


def _probability(path: Path, name: str, finding: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise CtscribeError(
            "E_LABEL_HEAD",
            f"probabilities in {path} must be numbers from 0 to 1, but {finding} of {name} is "
            f"{cell[:20]!r}",
        )
    return value


def _stripped(cells: Cells, without: Sequence[str] = ()) -> Cells:
    return {column: cell.strip() for column, cell in cells.items() if column not in without}


def _choose_columns(table: CellTable) -> tuple[str, tuple[str, ...]]:
    header = table.columns
    key = next((name for name in KEYS if name in header), None)
    if key:
        whole = [(name,) for name in TEXTS if name in header]
        parts = [both for both in _SECTIONS if set(both) <= set(header)]
        others = [name for name in header if name != key]
        known = [name for both in _SECTIONS for name in both]
        if len(whole) + len(parts) > 1:
            raise CtscribeError(
                "E_COLUMN",
                f"{table.path} must have one report in each row, because nothing says which of two "
                f"is meant, but has {' beside '.join(map(' and '.join, (*whole, *parts)))}",
            )
        if whole or parts:
            return key, (*whole, *parts)[0]
        if len(others) == 1 and others[0] not in known:
            return key, (others[0],)
    # Without a header the first row is a report, which an error must not quote.
    longest = max(map(len, header), default=0)
    found = "a report" if longest > _LONGEST_COLUMN else ", ".join(header)[:200] or "no header"
    raise CtscribeError(
        "E_COLUMN",
        f"{table.path} must have VolumeName or AccessionNo, and report_text or Findings_EN and "
        f"Impressions_EN, parted by commas, but has {found}",
    )


def report_sections(texts: Sequence[str]) -> tuple[str, str]:
    """Findings and impression, stripped, from two cells, or from one text split at its headings."""
    findings, impression = texts if len(texts) == 2 else split_report(without_placeholder(texts[0]))
    return without_placeholder(findings).strip(), without_placeholder(impression).strip()


class ReportFields(TypedDict):
    """The fields of `rows.ReportedRow` that come from the report's cells."""

    findings: str
    impression: str
    labels: Labels | None
    manufacturer: str | None
    sex: Sex | None
    age_years: float | None


def report_fields(
    name: str, texts: Sequence[str], about: Cells, labels: Cells | None
) -> ReportFields:
    """Turns the cells of one report into the fields of a `ReportedRow`.

    Args:
        name: The report's name, for errors.
        texts: Findings and impression, or the whole report; empty if the data set has no reports.
            Control characters are removed from them and from the manufacturer.
        about: Scanner and patient, in CT-RATE's columns ``Manufacturer``, ``PatientSex`` and
            ``PatientAge`` (in DICOM's format; unknown values become None) or a manifest's
            ``manufacturer``, ``sex`` (F, M, O or empty) and ``age`` (years). Any may be missing.
        labels: A row with the 18 findings, 0 or 1, or with none of them if the data set has no
            labels; None if the report's row is missing in the labels.

    Raises:
        CtscribeError: ``E_EMPTY_REPORT`` without findings, ``E_NO_LABELS``, ``E_COLUMN``,
            ``E_LABELS`` or ``E_METADATA``, naming the report.
    """
    findings, impression = map(plain_text, report_sections(texts)) if texts else ("", "")
    if texts and not findings:
        raise CtscribeError(
            "E_EMPTY_REPORT", f"{name} must have findings in its report, but they are empty"
        )
    return ReportFields(
        findings=findings,
        impression=impression,
        labels=_labels(name, labels),
        manufacturer=_manufacturer(about),
        sex=_sex(name, about),
        age_years=_age_years(name, about),
    )


def _labels(name: str, cells: Cells | None) -> Labels | None:
    if cells is None:
        raise CtscribeError(
            "E_NO_LABELS", f"{name} must have a row in the labels file, but has none"
        )
    if not set(FINDINGS) & cells.keys():
        return None
    for finding in FINDINGS:
        if finding not in cells:
            raise CtscribeError(
                "E_COLUMN",
                f"{name} must have all 18 findings as columns or none, but lacks {finding!r}",
            )
    return tuple(_label(name, finding, cells[finding].strip()) for finding in FINDINGS)


def _label(name: str, finding: str, cell: str) -> int:
    match = _LABEL.fullmatch(cell)
    if match is None:
        raise CtscribeError(
            "E_LABELS", f"{name} must have 0 or 1 for {finding!r}, but {cell[:20]!r} was found"
        )
    return int(not match["no"])


def _manufacturer(cells: Cells) -> str | None:
    names = (plain_text(without_placeholder(cells.get(column, ""))) for column in _MANUFACTURER)
    return next(filter(None, names), None)


def _sex(name: str, cells: Cells) -> Sex | None:
    sex = cells.get("sex", "")
    if sex and sex not in _SEXES:
        raise CtscribeError(
            "E_METADATA", f"{name} must have sex F, M, O or none, but {sex[:20]!r} was found"
        )
    return _SEXES.get(cells.get("PatientSex", "").strip() or sex)


def _age_years(name: str, cells: Cells) -> float | None:
    if age := cells.get("age", ""):
        if not re.fullmatch(r"\d{1,3}(\.\d+)?", age) or float(age) > MAX_AGE_YEARS:
            raise CtscribeError(
                "E_METADATA",
                f"{name} must have an age in years from 0 to {MAX_AGE_YEARS}, but {age[:20]!r} "
                "was found",
            )
        return float(age)
    dicom = re.fullmatch(r"(\d{1,3})([DWMY])", cells.get("PatientAge", "").strip())
    years = int(dicom[1]) / _UNITS_PER_YEAR[dicom[2]] if dicom else math.inf
    return years if years <= MAX_AGE_YEARS else None
