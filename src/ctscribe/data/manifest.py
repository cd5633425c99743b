"""A data set of one's own: a CSV or JSONL file with one row per scan.

Columns: ``volume`` (a NIfTI file, or the folder or zip of a DICOM series, relative to the
manifest's folder and inside it; links are followed), ``patient``, ``scan``, and ``report`` or
``findings`` with ``impression``; if wanted ``split`` (train or valid, which becomes the test
split), ``manufacturer``, ``sex``, ``age`` (years), ``masks`` (a folder of NIfTI masks, each named
after the finding that it shows) and CT-RATE's 18 findings (0 or 1).
"""

import csv
import difflib
import io
import json
import os.path
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import SkippedRow
from ctscribe.data.listing import ListedVolume, Reconstructions, list_volumes
from ctscribe.text.csv_tables import read_table_text
from ctscribe.text.findings import FINDINGS
from ctscribe.text.sections import split_report

Cells = dict[str, str]
"""By column, stripped; empty where the row or the manifest has none, ``split`` being train then.
The findings are there only if the manifest has them."""
COLUMNS = (
    *("volume", "patient", "scan", "split"),
    *("report", "findings", "impression"),
    *("manufacturer", "sex", "age", "masks"),
)
_REQUIRED = ("volume", "patient", "scan")


def read_cells(path: Path) -> dict[int, Cells]:
    """Reads a manifest's cells by row number.

    Rows are counted as a spreadsheet does: in a CSV file the header is row 1, in a JSONL file
    each line is a row.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, ``E_ENCODING``, or ``E_MANIFEST`` for what is no
            table or has not the columns of a manifest.
    """
    text = read_table_text(path)
    read = _read_csv if path.suffix.lower() == ".csv" else _read_jsonl
    columns, rows = read(path, text)
    _check_columns(path, columns)
    if not rows:
        raise _refused(path, "it has no row")
    labels = FINDINGS if FINDINGS[0] in columns else ()
    defaults = {**dict.fromkeys((*COLUMNS, *labels), ""), "split": ""}
    if "split" not in columns:
        defaults["split"] = "train"
    return {
        number: defaults | {column: cell.strip() for column, cell in cells.items()}
        for number, cells in rows.items()
    }


def _refused(path: Path, fault: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", f"{path} must be a manifest of scans, but {fault}")


def _read_csv(path: Path, text: str) -> tuple[set[str], dict[int, Cells]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[int, Cells] = {}
    number = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            raise _refused(path, "its columns are not divided by commas")
        _check_unique(path, header)
        for cells in reader:
            number += 1
            if len(cells) not in (0, len(header)):
                fault = f"row {number} has {len(cells)} cells for {len(header)} columns"
                raise _refused(path, fault)
            if any(cells):
                rows[number] = dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise _refused(path, f"row {number + 1} is no CSV: {error}") from error
    return set(header), rows


def _read_jsonl(path: Path, text: str) -> tuple[set[str], dict[int, Cells]]:
    rows: dict[int, Cells] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise _refused(path, f"row {number} is no JSON") from error
        if type(pairs) is not tuple or any(isinstance(cell, tuple | list) for _, cell in pairs):
            raise _refused(path, f"row {number} is no flat JSON object")
        _check_unique(path, [column for column, _ in pairs])
        rows[number] = {column: _as_text(cell) for column, cell in pairs}
    return {column for cells in rows.values() for column in cells}, rows


def _as_text(cell: object) -> str:
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, bool) else str(cell)


def _check_unique(path: Path, columns: list[str]) -> None:
    repeated = [column for column, count in Counter(columns).items() if count > 1]
    if repeated:
        raise _refused(path, f"it has the column {repeated[0][:40]!r} twice")


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    found = set(columns)
    known = {name.lower(): name for name in (*COLUMNS, *FINDINGS)}
    for column in sorted(found - set(known.values())):
        near = difflib.get_close_matches(column.lower(), known, 1)
        hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
        raise _refused(path, f"the column {column[:40]!r} is unknown{hint}")
    for column in _REQUIRED:
        if column not in found:
            raise _refused(path, f"it lacks the column {column!r}")
    if ("report" in found) == ("findings" in found) or {"report", "impression"} <= found:
        raise _refused(path, "it must have either 'report', or 'findings' and 'impression'")
    lacking = [finding for finding in FINDINGS if finding not in found]
    if 0 < len(lacking) < len(FINDINGS):
        raise _refused(path, f"it has some findings as columns, but lacks {lacking[0]!r}")


_MAX_NAME = 100
_MAX_TEXT = 100_000
_MAX_AGE_YEARS = 130
_NUM_TOLD = 3


def list_manifest(path: Path) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Reads a manifest; its rows must all be sound, its volumes may be missing.

    A scan's name, with everything but letters, digits, ``.``, ``_`` and ``-`` replaced by
    ``-``, names its outputs.

    Args:
        path: ``.csv`` or ``.jsonl``, UTF-8.

    Returns:
        Volumes in the order of their rows, and those without a file or a text.

    Raises:
        CtscribeError: ``E_MANIFEST`` with the rows at fault, ``E_ENCODING`` or ``E_MISSING``.
    """
    rows = read_cells(path)
    volumes: list[ListedVolume] = []
    skipped: list[SkippedRow] = []
    faults = _clashes(rows)
    for number, cells in rows.items():
        try:
            volumes.append(_listed(path.parent, cells))
        except CtscribeError as error:
            if error.code == "E_MANIFEST":
                faults.append((number, error.told))
            else:
                name = safe_name(cells["scan"])
                skipped.append(SkippedRow(volume_name=name, code=error.code, reason=error.sentence))
    if faults:
        raise _refusal(path, faults)
    return volumes, skipped


def safe_name(scan: str) -> str:
    """A scan's name as file names may hold it; at most 100 characters, maybe none."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", scan)
    while name.lower().endswith((".gz", ".nii")):
        name = name[: name.rindex(".")]
    return name.strip("-.")[:_MAX_NAME]


def _refusal(path: Path, faults: list[tuple[int, str]]) -> CtscribeError:
    told = [f"row {number}: {fault}" for number, fault in sorted(faults)]
    if len(told) > _NUM_TOLD:
        told[_NUM_TOLD:] = [f"and {len(told) - _NUM_TOLD} more"]
    return CtscribeError(
        "E_MANIFEST",
        f"{path} must describe one scan in each row, but {'; '.join(told)}",
    )


def _clashes(rows: dict[int, Cells]) -> list[tuple[int, str]]:
    """Rows that say what another row has said, or put one patient into both splits."""

    def repeated(key: Callable[[Cells], str], fault: str) -> Iterable[tuple[int, str]]:
        first: dict[str, int] = {}
        for number, cells in rows.items():
            before = first.setdefault(key(cells), number)
            if before != number:
                yield number, fault.format(before=before)

    faults = [
        *repeated(lambda cells: safe_name(cells["scan"]).casefold(), "scan as in row {before}"),
        *repeated(lambda cells: os.path.normpath(cells["volume"]), "volume as in row {before}"),
    ]
    splits: dict[str, tuple[str, int]] = {}
    for number, cells in rows.items():
        split, before = splits.setdefault(cells["patient"], (cells["split"], number))
        if split != cells["split"]:
            faults.append((number, f"patient in another split than in row {before}"))
    return faults


def _listed(folder: Path, cells: Cells) -> ListedVolume:
    scan, patient = _name(cells, "scan"), _name(cells, "patient")
    name = safe_name(scan)
    if not name:
        raise _fault(f"scan must have a letter or digit, but {scan!r} has none")
    path = _inside(folder, cells, "volume")
    masks_dir = _inside(folder, cells, "masks") if cells["masks"] else None
    if masks_dir is not None and not any(map(finding_of, masks_dir.glob("*.nii*"))):
        raise _fault("masks must be a folder of masks named after findings, but is none")
    if cells["split"] not in ("train", "valid"):
        raise _fault(f"split must be train or valid, but is {cells['split'][:20]!r}")
    labels, age_years = _labels(cells), _age_years(cells["age"])
    if cells["sex"] not in ("", "F", "M", "O"):
        raise _fault(f"sex must be F, M, O or empty, but is {cells['sex'][:20]!r}")
    findings, impression = _texts(name, cells)
    if not path.exists():
        raise CtscribeError(
            "E_MISSING",
            f"{name} must be on disk because the manifest names it, but is not",
        )
    return ListedVolume(
        volume_name=name,
        patient_id=patient,
        scan_id=scan,
        source_split="valid" if cells["split"] == "valid" else "train",
        path=path,
        metadata=None,
        findings=findings,
        impression=impression,
        labels=labels,
        manufacturer=cells["manufacturer"] or None,
        sex=cells["sex"] or None,
        age_years=age_years,
        masks_dir=masks_dir,
    )


def finding_of(mask: Path) -> str | None:
    """The finding after which a mask is named, whatever its capitals and separators; or None."""
    plain = re.sub(r"[\W_]+", " ", mask.name.removesuffix(".gz").removesuffix(".nii")).strip()
    return next((name for name in FINDINGS if name.lower() == plain.lower()), None)


def _fault(sentence: str) -> CtscribeError:
    return CtscribeError("E_MANIFEST", sentence)


def _name(cells: Cells, column: str, at_most: int = _MAX_NAME) -> str:
    cell = cells[column]
    if not cell or len(cell) > at_most or not cell.isprintable():
        raise _fault(f"{column} must be 1 to {at_most} printable characters, but is not")
    return cell


def _inside(folder: Path, cells: Cells, column: str) -> Path:
    """The path of a cell, which must not lead out of the manifest's folder.

    A manifest comes with the data it names; one from elsewhere shall not reach other files.
    """
    relative = PurePosixPath(os.path.normpath(_name(cells, column, at_most=4096)))
    if relative.is_absolute() or relative.parts[:1] in ((), ("..",)):
        raise _fault(f"{column} must be a path inside the manifest's folder, but leads out of it")
    return folder / relative


def _texts(name: str, cells: Cells) -> tuple[str, str]:
    if max(len(cells[column]) for column in ("report", "findings", "impression")) > _MAX_TEXT:
        raise _fault(f"its texts must have at most {_MAX_TEXT} characters, but one has more")
    texts = (cells["findings"], cells["impression"])
    findings, impression = split_report(cells["report"]) if cells["report"] else texts
    if not findings.strip():
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"{name} must have findings in its report, but they are empty",
        )
    findings, impression = (" ".join(text.split()) for text in (findings, impression))
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in findings + impression):
        raise _fault("its texts must be plain, but one has a control sign or half a character")
    return findings, impression


def _labels(cells: Cells) -> tuple[int, ...] | None:
    if FINDINGS[0] not in cells:
        return None
    for finding in FINDINGS:
        if cells[finding] not in ("0", "1"):
            raise _fault(f"{finding} must be 0 or 1, but is {cells[finding][:20]!r}")
    return tuple(int(cells[finding]) for finding in FINDINGS)


def _age_years(cell: str) -> float | None:
    if not cell:
        return None
    if not re.fullmatch(r"\d{1,3}(\.\d+)?", cell) or float(cell) > _MAX_AGE_YEARS:
        raise _fault(f"age must be years from 0 to {_MAX_AGE_YEARS}, but is {cell[:20]!r}")
    return float(cell)


def list_source(
    source: Path, thin_mm: float, reconstructions: Reconstructions = "one"
) -> tuple[list[ListedVolume], list[SkippedRow]]:
    """Lists the volumes of a folder in CT-RATE's shape or of a ``.csv`` or ``.jsonl`` manifest.

    Args:
        source: Folder or manifest.
        thin_mm: See `choose_reconstructions`; a manifest names each volume itself.
        reconstructions: See `choose_reconstructions`.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_SOURCE``, or what is wrong with its tables.
    """
    if source.is_dir():
        return list_volumes(source, thin_mm, reconstructions)
    if source.suffix.lower() in (".csv", ".jsonl"):
        return list_manifest(source)
    if not source.exists():
        raise CtscribeError("E_MISSING", f"{source} must exist")
    raise CtscribeError(
        "E_SOURCE",
        f"{source} must be a folder in CT-RATE's shape or a manifest ending in .csv or .jsonl, but "
        "is another file",
    )
