"""The manifest of own scans: a CSV or JSONL file with one row per scan.

Required columns: ``volume`` (a NIfTI file, or the folder, zip or list (`scan.file_list`) of a DICOM
series, relative to the manifest's folder and inside it unless outside paths are allowed; links are
followed), ``patient`` and ``scan``.

Optional columns: ``report``, or ``findings`` with ``impression`` (scans without a text can only be
drafted); ``split`` (see `meaning_of_splits`); ``manufacturer``, ``sex``, ``age`` (years); ``masks``
(a folder of NIfTI masks, each named after the finding that it shows); ``series`` (number or
SeriesInstanceUID, where a DICOM folder holds several); CT-RATE's 18 findings (0 or 1). The columns
in which `data.worklist` describes the series it chose are ignored.
"""

import hashlib
import json
import os.path
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from ctscribe.base.errors import CtscribeError
from ctscribe.base.outside_text import file_name, named_path, names_nothing, nfc, printable
from ctscribe.base.rows import SkippedRow, read_lines
from ctscribe.base.tables import (
    Cells,
    CellTable,
    check_columns,
    check_header,
    each_csv_row,
    read_csv,
)
from ctscribe.base.types import SourceSplit, Split
from ctscribe.data.ct_rate import SPLITS, CtRateTree
from ctscribe.data.listing import ListedVolume, Reconstructions, each_volume, natural_order
from ctscribe.scan.file_list import is_file_list, is_inside, read_file_list
from ctscribe.text.findings import FINDINGS
from ctscribe.text.report_tables import ReportFields, report_fields

StatedSplit = tuple[SourceSplit, Split | None]
"""The meaning of a cell of ``split``: CT-RATE's split, and ours unless it is drawn later."""
COLUMNS = (
    *("volume", "patient", "scan", "split"),
    *("report", "findings", "impression"),
    *("manufacturer", "sex", "age", "masks", "series"),
    *("kernel", "thickness_mm", "chosen", "why"),
)
_REQUIRED = ("volume", "patient", "scan")
_KEYS = (*_REQUIRED, "split")
_TEXTS = frozenset({"report", "findings", "impression"})
_AS_CT_RATE: Mapping[str, StatedSplit] = {"train": ("train", None), "valid": ("valid", None)}
_TESTED: Mapping[str, StatedSplit] = {"train": ("train", None), "test": ("valid", "test")}
_WITH_THREE: Mapping[str, StatedSplit] = {
    "train": ("train", "train"),
    "valid": ("train", "validation"),
    "test": ("valid", "test"),
}
_MAX_NAME = 100
_MAX_TEXT = 1_000_000
_MAX_FAULTS_NAMED = 3
_NOT_PLAIN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and lone surrogates."""


def list_source(
    source: Path,
    thin_mm: float,
    reconstructions: Reconstructions = "one",
    *,
    allow_outside: bool = False,
) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Lists the volumes of `each_source` to prepare, and those to skip.

    A manifest's volumes come in the order of its rows, CT-RATE's in `natural_order`.

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

    For a manifest, ``thin_mm`` and ``reconstructions`` have no effect; for CT-RATE they are those
    of `choose_reconstructions`, and ``allow_outside`` has no effect.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_SOURCE``, or what is wrong with its tables.
    """
    if source.is_dir():
        return each_volume(source, thin_mm, reconstructions)
    if _is_manifest(source):
        return each_in_manifest(source, allow_outside=allow_outside)
    if not source.exists():
        raise CtscribeError("E_MISSING", f"{source} must exist")
    raise CtscribeError(
        "E_SOURCE",
        f"{source} must be a folder in CT-RATE's shape or a manifest ending in .csv or .jsonl, but "
        "is another file",
    )


def is_data_set(source: Path) -> bool:
    """Whether a path is a manifest or a tree with CT-RATE's reports."""
    tree = CtRateTree(source)
    return _is_manifest(source) or any(tree.reports_path(split).exists() for split in SPLITS)


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".jsonl") and not path.is_dir()


def each_in_manifest(
    path: Path, *, allow_outside: bool = False
) -> Iterator[ListedVolume | SkippedRow]:
    """Reads a manifest; all its rows must be valid, but volumes may be missing.

    Outputs are named after scans, see `volume_names`. So that a manifest from elsewhere cannot read
    other files, volumes and masks must lie in its folder unless ``allow_outside`` is set; absolute
    paths need it too.

    Yields:
        Volumes in the order of their rows, and those to skip, which lack a file or a text. Reports
        are read one by one, so the error about invalid rows is raised at the end.

    Raises:
        CtscribeError: ``E_MANIFEST`` with the rows at fault, ``E_ENCODING`` or ``E_MISSING``.
    """
    keys, defaults = _read_keys(path)
    faults = _clashes(keys)
    names = volume_names(cells["scan"] for cells in keys.values())
    splits = meaning_of_splits({cells["split"] for cells in keys.values()})
    del keys
    for number, row in _each_row(path):
        cells = defaults | _stripped(row)
        name = names[cells["scan"]]
        try:
            yield _listed(path.parent, name, cells, allow_outside, splits)
        except CtscribeError as error:
            if error.code in ("E_MISSING", "E_EMPTY_REPORT"):
                yield SkippedRow.of(name, error)
            else:
                faults.append((number, error.told))
    if faults:
        raise _bad_rows(path, faults)


def _read_keys(path: Path) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
    """The cells of `_KEYS` by row number, and default cells for columns that a row lacks.

    Defaults are empty; there are none for the 18 findings and the texts unless the manifest has
    them. Without a column ``split`` all scans are ``train``, or ``valid`` if the manifest has no
    texts. Lines of a JSONL file count as rows.
    """
    table = _read_table(path)
    check_columns(table, _REQUIRED, (*COLUMNS, *FINDINGS), "E_MANIFEST")
    found = set(table.columns)
    texts = found & _TEXTS
    if texts not in (set(), {"report"}, {"findings", "impression"}, {"findings"}):
        raise _not_a_manifest(path, "it must have either 'report', or 'findings' and 'impression'")
    if not table.rows:
        raise _not_a_manifest(path, "it has no row")
    known = (*COLUMNS, *(name for name in FINDINGS if name in found))
    defaults = {name: "" for name in known if texts or name not in _TEXTS}
    if "split" not in found:
        defaults["split"] = "train" if texts else "valid"
    kept = {column: defaults[column] for column in _KEYS}
    return {number: kept | _stripped(cells) for number, cells in table.rows.items()}, defaults


def _stripped(cells: Cells) -> dict[str, str]:
    """Cells without surrounding white space; names are in Unicode's composed form."""
    return {
        column: nfc(cell.strip()) if column in ("patient", "scan") else cell.strip()
        for column, cell in cells.items()
    }


def _read_table(path: Path) -> CellTable:
    """A manifest's columns, and its cells in the columns `_KEYS`."""
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
    """Rows that repeat another row's scan or volume, or put a patient into two splits."""

    def repeated(key: Callable[[Cells], str], fault: str) -> Iterable[tuple[int, str]]:
        first: dict[str, int] = {}
        for number, cells in rows.items():
            before = first.setdefault(key(cells), number)
            if before != number:
                yield number, fault.format(before=before)

    faults = [
        *repeated(lambda cells: _without_suffix(cells["scan"]), "scan as in row {before}"),
        *repeated(
            lambda cells: nfc(os.path.normpath(cells["volume"])), "volume as in row {before}"
        ),
    ]
    splits: dict[str, tuple[str, int]] = {}
    for number, cells in rows.items():
        split, before = splits.setdefault(cells["patient"], (cells["split"], number))
        if split != cells["split"]:
            faults.append((number, f"patient in another split than in row {before}"))
    return faults


def meaning_of_splits(stated: Collection[str]) -> Mapping[str, StatedSplit]:
    """What the words in a column ``split`` mean, given all words that occur in it.

    Without ``test`` they mean what they do in CT-RATE: valid is the test split, and validation
    patients are drawn from train. With ``test``, valid is the validation split; if no row is valid,
    validation patients are drawn from train.
    """
    if "test" not in stated:
        return _AS_CT_RATE
    return _WITH_THREE if "valid" in stated else _TESTED


def parse_split(name: str, cell: str, splits: Mapping[str, StatedSplit]) -> StatedSplit:
    """Parses the split that a row of own data states.

    Raises:
        CtscribeError: ``E_COLUMN`` naming the row's scan.
    """
    if cell not in splits:
        raise CtscribeError(
            "E_COLUMN", f"{name} must have split train, valid or test, but {cell[:20]!r} was found"
        )
    return splits[cell]


def _listed(
    folder: Path,
    name: str,
    cells: Cells,
    allow_outside: bool,
    splits: Mapping[str, StatedSplit],
) -> ListedVolume:
    scan, patient = _name(cells, "scan"), _name(cells, "patient")
    if not name:
        raise _bad_cell(f"scan must have a letter or digit, but {scan!r} has none")
    path = _place(folder, cells, "volume", allow_outside)
    masks_dir = _place(folder, cells, "masks", allow_outside) if cells["masks"] else None
    if masks_dir is not None and not any(map(finding_of, masks_dir.glob("*.nii*"))):
        raise _bad_cell("masks must be a folder of masks named after findings, but is none")
    source_split, split = parse_split(name, cells["split"], splits)
    fields = _fields(name, cells)
    if not path.exists():
        raise CtscribeError(
            "E_MISSING", f"{name} must be on disk because the manifest names it, but is not"
        )
    path = _behind_list(folder, path, allow_outside)
    return ListedVolume(
        volume_name=name,
        patient_id=patient,
        scan_id=scan,
        source_split=source_split,
        split=split,
        path=path,
        masks_dir=masks_dir,
        series=_name(cells, "series") if cells["series"] else None,
        **fields,
    )


def _place(folder: Path, cells: Cells, column: str, allow_outside: bool) -> Path:
    """The path in a cell, which must lie in the folder; see `each_in_manifest`."""
    cell = _name(cells, column, at_most=4096)
    path = named_path(folder, cell, allow_outside=allow_outside)
    if path is None:
        raise _bad_cell(
            f"{column} must be a path inside the manifest's folder, or --allow-outside be given, "
            "but it leads out of it"
        )
    return path


def _behind_list(folder: Path, path: Path, allow_outside: bool) -> Path:
    """The only file in a file list, or the list itself; its files must lie where volumes may."""
    if not is_file_list(path):
        return path
    files = read_file_list(path)
    here = folder.resolve()
    if not allow_outside and not all(is_inside(file, here) for file in files):
        raise _bad_cell(
            "volume must list files inside the manifest's folder, or --allow-outside be given, but "
            "one lies out of it"
        )
    entries = [*files.values()]
    return next(iter(files)) if entries == [None] else path


def _name(cells: Cells, column: str, at_most: int = _MAX_NAME) -> str:
    cell = cells[column]
    if not 0 < len(cell) <= at_most or "\n" in cell or cell != printable(cell):
        raise _bad_cell(f"{column} must be 1 to {at_most} printable characters, but is not")
    if column in _REQUIRED and names_nothing(cell):
        raise _bad_cell(f"{column} must be named, but is {cell!r}")
    return cell


def _fields(name: str, cells: Cells) -> ReportFields:
    if not _TEXTS & cells.keys():
        return report_fields(name, (), cells, cells)
    whole, sections = (cells["report"],), (cells["findings"], cells["impression"])
    if max(map(len, (*whole, *sections))) > _MAX_TEXT:
        raise _bad_cell(f"its texts must have at most {_MAX_TEXT} characters, but one has more")
    if _NOT_PLAIN.search("".join("".join((*whole, *sections)).split())):
        raise _bad_cell("its texts must be plain, but one has a control sign or half a character")
    return report_fields(name, whole if cells["report"] else sections, cells, cells)


def _bad_cell(sentence: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", sentence)


def _bad_rows(path: Path, faults: list[tuple[int, str]]) -> CtscribeError:
    named = [f"row {number}: {fault}" for number, fault in sorted(faults)]
    if len(named) > _MAX_FAULTS_NAMED:
        named[_MAX_FAULTS_NAMED:] = [f"and {len(named) - _MAX_FAULTS_NAMED} more"]
    return CtscribeError(
        "E_MANIFEST", f"{path} must describe one scan in each row, but {'; '.join(named)}"
    )


def volume_names(scans: Iterable[str]) -> dict[str, str]:
    """Scan → name of its outputs, empty where a scan's name has neither letter nor digit.

    Names that would be equal on some file systems, as they differ only in case or in characters
    that are replaced, get a part of their hash appended.
    """
    names = {scan: safe_name(scan) for scan in scans}
    uses = Counter(name.casefold() for name in names.values())
    return {
        scan: _marked(name, scan) if name and uses[name.casefold()] > 1 else name
        for scan, name in names.items()
    }


def _marked(name: str, scan: str) -> str:
    return f"{name}-{hashlib.sha256(nfc(scan).encode()).hexdigest()[:8]}"


def safe_name(scan: str) -> str:
    """A scan's name made fit for file names, without suffixes; see `file_name`."""
    return _without_suffix(file_name(_without_suffix(scan)))


def _without_suffix(name: str) -> str:
    while name.lower().endswith((".gz", ".nii")):
        name = name[: name.rindex(".")].rstrip("-.")
    return name


def finding_of(mask: Path) -> str | None:
    """The finding after which a mask is named, in any case and with any separators; or None."""
    plain = re.sub(r"[\W_]+", " ", mask.name.removesuffix(".gz").removesuffix(".nii")).strip()
    return next((name for name in FINDINGS if name.lower() == plain.lower()), None)
