"""A data set of one's own: a CSV or JSONL file with one row per scan.

Columns: ``volume`` (a NIfTI file, or the folder or zip of a DICOM series, relative to the
manifest's folder and inside it unless that is allowed; links are followed), ``patient``, ``scan``,
and ``report`` or ``findings`` with ``impression``; if wanted ``split`` (train or valid, which
becomes the test split), ``manufacturer``, ``sex``, ``age`` (years), ``masks`` (a folder of NIfTI
masks, each named after the finding that it shows), ``series`` (number or SeriesInstanceUID of the
one to read, where a DICOM folder holds several) and CT-RATE's 18 findings (0 or 1).
"""

import hashlib
import json
import os.path
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import file_name, named_path, one_form, printable
from ctscribe.base.rows import SkippedRow, read_lines
from ctscribe.base.tables import (
    Cells,
    CellTable,
    check_columns,
    check_header,
    each_csv_row,
    read_csv,
)
from ctscribe.data.ct_rate import parse_split
from ctscribe.data.listing import ListedVolume, Reconstructions, each_volume, natural_order
from ctscribe.text.findings import FINDINGS
from ctscribe.text.report_tables import ReportFields, report_fields

COLUMNS = (
    *("volume", "patient", "scan", "split"),
    *("report", "findings", "impression"),
    *("manufacturer", "sex", "age", "masks", "series"),
)
_REQUIRED = ("volume", "patient", "scan")
_KEYS = (*_REQUIRED, "split")
_MAX_NAME = 100
_MAX_TEXT = 1_000_000
_NUM_TOLD = 3


def list_source(
    source: Path,
    thin_mm: float,
    reconstructions: Reconstructions = "one",
    *,
    allow_outside: bool = False,
) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Lists the volumes of `each_source`, and those to skip.

    Those of a manifest come in the order of its rows, those of CT-RATE in `natural_order`.

    Raises:
        CtscribeError: As `each_source`.
    """
    entries = each_source(source, thin_mm, reconstructions, allow_outside=allow_outside)
    volumes: list[ListedVolume] = []
    skipped: list[SkippedRow] = []
    for entry in entries:
        if isinstance(entry, ListedVolume):
            volumes.append(entry)
        else:
            skipped.append(entry)
    if source.is_dir():
        volumes.sort(key=lambda volume: natural_order(volume.volume_name))
    return volumes, skipped


def each_source(
    source: Path,
    thin_mm: float,
    reconstructions: Reconstructions = "one",
    *,
    allow_outside: bool = False,
) -> Iterator[ListedVolume | SkippedRow]:
    """The volumes of a folder in CT-RATE's shape or of a ``.csv`` or ``.jsonl`` manifest.

    A manifest names each volume itself, see `each_in_manifest`; for the other arguments see
    `choose_reconstructions`.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_SOURCE``, or what is wrong with its tables.
    """
    if source.is_dir():
        return each_volume(source, thin_mm, reconstructions)
    if source.suffix.lower() in (".csv", ".jsonl"):
        return each_in_manifest(source, allow_outside=allow_outside)
    if not source.exists():
        raise CtscribeError("E_MISSING", f"{source} must exist")
    raise CtscribeError(
        "E_SOURCE",
        f"{source} must be a folder in CT-RATE's shape or a manifest ending in .csv or .jsonl, but "
        "is another file",
    )


def each_in_manifest(
    path: Path, *, allow_outside: bool = False
) -> Iterator[ListedVolume | SkippedRow]:
    """Reads a manifest; its rows must all be sound, its volumes may be missing.

    A scan's name names its outputs; see `volume_names`. A manifest comes with the data it names,
    and one from elsewhere shall not reach other files: only with ``allow_outside`` may volumes and
    masks lie outside its folder, also by absolute paths.

    Returns:
        Volumes in the order of their rows, and those without a file or a text. Reports are read
        one after the other, so the error about rows comes last.

    Raises:
        CtscribeError: ``E_MANIFEST`` with the rows at fault, ``E_ENCODING`` or ``E_MISSING``.
    """
    keys, defaults = _read_keys(path)
    faults = _clashes(keys)
    names = volume_names(cells["scan"] for cells in keys.values())
    del keys
    for number, row in _each_row(path):
        cells = defaults | _stripped(row)
        name = names[cells["scan"]]
        try:
            yield _listed(path.parent, name, cells, allow_outside)
        except CtscribeError as error:
            if error.code in ("E_MISSING", "E_EMPTY_REPORT"):
                yield SkippedRow.of(name, error)
            else:
                faults.append((number, error.told))
    if faults:
        raise _bad_rows(path, faults)


def _read_keys(path: Path) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
    """By row what tells volumes, scans and patients apart, and the cells of columns that lack.

    A cell is empty where the row or the manifest has none; ``split`` is train if there is no such
    column, and the findings are there only if the manifest has them. A JSONL file's lines count as
    rows.
    """
    table = _read_table(path)
    check_columns(table, _REQUIRED, (*COLUMNS, *FINDINGS), "E_MANIFEST")
    found = set(table.columns)
    if ("report" in found) == ("findings" in found) or {"report", "impression"} <= found:
        raise _not_a_manifest(path, "it must have either 'report', or 'findings' and 'impression'")
    if not table.rows:
        raise _not_a_manifest(path, "it has no row")
    defaults = dict.fromkeys((*COLUMNS, *(name for name in FINDINGS if name in found)), "")
    if "split" not in found:
        defaults["split"] = "train"
    kept = {column: defaults[column] for column in _KEYS}
    return {number: kept | _stripped(cells) for number, cells in table.rows.items()}, defaults


def _stripped(cells: Cells) -> dict[str, str]:
    """Cells without white space around them; names are in Unicode's composed form."""
    return {
        column: one_form(cell.strip()) if column in ("patient", "scan") else cell.strip()
        for column, cell in cells.items()
    }


def _read_table(path: Path) -> CellTable:
    """A manifest's columns, and of its cells those of `_KEYS`."""
    if path.suffix.lower() == ".csv":
        return read_csv(path, "E_MANIFEST", _KEYS)
    columns: dict[str, None] = {}
    rows = {}
    for number, cells in _each_row(path):
        columns |= dict.fromkeys(cells)
        rows[number] = {column: cells[column] for column in _KEYS if column in cells}
    return CellTable(path, tuple(columns), rows)


def _each_row(path: Path) -> Iterator[tuple[int, Cells]]:
    if path.suffix.lower() == ".csv":
        yield from each_csv_row(path, "E_MANIFEST")[1]
        return
    for number, line in read_lines(path):
        try:
            pairs = json.loads(line, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise _not_a_manifest(path, f"row {number} is no JSON") from error
        if type(pairs) is not tuple or any(isinstance(cell, tuple | list) for _, cell in pairs):
            raise _not_a_manifest(path, f"row {number} is no flat JSON object")
        check_header(path, [column for column, _ in pairs], "E_MANIFEST")
        yield number, {column: _as_text(cell) for column, cell in pairs}


def _as_text(cell: object) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, bool) else str(cell)


def _not_a_manifest(path: Path, fault: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", f"{path} must be a manifest of scans, but {fault}")


def _clashes(rows: Mapping[int, Cells]) -> list[tuple[int, str]]:
    """Rows that repeat another row's scan or volume, or put one patient into both splits."""

    def repeated(key: Callable[[Cells], str], fault: str) -> Iterable[tuple[int, str]]:
        first: dict[str, int] = {}
        for number, cells in rows.items():
            before = first.setdefault(key(cells), number)
            if before != number:
                yield number, fault.format(before=before)

    faults = [
        *repeated(lambda cells: _without_suffix(cells["scan"]), "scan as in row {before}"),
        *repeated(
            lambda cells: one_form(os.path.normpath(cells["volume"])), "volume as in row {before}"
        ),
    ]
    splits: dict[str, tuple[str, int]] = {}
    for number, cells in rows.items():
        split, before = splits.setdefault(cells["patient"], (cells["split"], number))
        if split != cells["split"]:
            faults.append((number, f"patient in another split than in row {before}"))
    return faults


def _listed(folder: Path, name: str, cells: Cells, allow_outside: bool) -> ListedVolume:
    scan, patient = _name(cells, "scan"), _name(cells, "patient")
    if not name:
        raise _bad_cell(f"scan must have a letter or digit, but {scan!r} has none")
    path = _place(folder, cells, "volume", allow_outside)
    masks_dir = _place(folder, cells, "masks", allow_outside) if cells["masks"] else None
    if masks_dir is not None and not any(map(finding_of, masks_dir.glob("*.nii*"))):
        raise _bad_cell("masks must be a folder of masks named after findings, but is none")
    split = parse_split(name, cells["split"])
    fields = _fields(name, cells)
    if not path.exists():
        raise CtscribeError(
            "E_MISSING", f"{name} must be on disk because the manifest names it, but is not"
        )
    return ListedVolume(
        volume_name=name,
        patient_id=patient,
        scan_id=scan,
        source_split=split,
        path=path,
        masks_dir=masks_dir,
        series=_name(cells, "series") if cells["series"] else None,
        **fields,
    )


def _place(folder: Path, cells: Cells, column: str, allow_outside: bool) -> Path:
    """The path in a cell; see `each_in_manifest`."""
    cell = _name(cells, column, at_most=4096)
    path = named_path(folder, cell, allow_outside=allow_outside)
    if path is None:
        raise _bad_cell(
            f"{column} must be a path inside the manifest's folder, or --allow-outside be given, "
            "but it leads out of it"
        )
    return path


def _name(cells: Cells, column: str, at_most: int = _MAX_NAME) -> str:
    cell = cells[column]
    if not 0 < len(cell) <= at_most or "\n" in cell or cell != printable(cell):
        raise _bad_cell(f"{column} must be 1 to {at_most} printable characters, but is not")
    return cell


def _fields(name: str, cells: Cells) -> ReportFields:
    whole, sections = (cells["report"],), (cells["findings"], cells["impression"])
    if max(map(len, (*whole, *sections))) > _MAX_TEXT:
        raise _bad_cell(f"its texts must have at most {_MAX_TEXT} characters, but one has more")
    signs = "".join("".join((*whole, *sections)).split())
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in signs):
        raise _bad_cell("its texts must be plain, but one has a control sign or half a character")
    return report_fields(name, whole if cells["report"] else sections, cells, cells)


def _bad_cell(sentence: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", sentence)


def _bad_rows(path: Path, faults: list[tuple[int, str]]) -> CtscribeError:
    told = [f"row {number}: {fault}" for number, fault in sorted(faults)]
    if len(told) > _NUM_TOLD:
        told[_NUM_TOLD:] = [f"and {len(told) - _NUM_TOLD} more"]
    return CtscribeError(
        "E_MANIFEST", f"{path} must describe one scan in each row, but {'; '.join(told)}"
    )


def volume_names(scans: Iterable[str]) -> dict[str, str]:
    """The names of scans' outputs, by scan; empty where a scan has neither letter nor digit.

    Scans whose names differ only in capitals, or in signs that no file can have, are told apart by
    a part of their hash, because not every file system would.
    """
    names = {scan: safe_name(scan) for scan in scans}
    uses = Counter(name.casefold() for name in names.values())
    return {
        scan: _marked(name, scan) if name and uses[name.casefold()] > 1 else name
        for scan, name in names.items()
    }


def _marked(name: str, scan: str) -> str:
    return f"{name}-{hashlib.sha256(one_form(scan).encode()).hexdigest()[:8]}"


def safe_name(scan: str) -> str:
    """A scan's name made fit for file names, without suffixes; see `file_name`."""
    return _without_suffix(file_name(_without_suffix(scan)))


def _without_suffix(name: str) -> str:
    while name.lower().endswith((".gz", ".nii")):
        name = name[: name.rindex(".")].rstrip("-.")
    return name


def finding_of(mask: Path) -> str | None:
    """The finding after which a mask is named, whatever its capitals and separators; or None."""
    plain = re.sub(r"[\W_]+", " ", mask.name.removesuffix(".gz").removesuffix(".nii")).strip()
    return next((name for name in FINDINGS if name.lower() == plain.lower()), None)
