"""The cells of a manifest: CSV or JSONL text → one dictionary per row."""

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ctscribe.errors import CtscribeError
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.table_text import read_table_text

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
