"""Tables of reports as they come: any CSV with a key and text, refused by row where it is broken.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_text
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions, label_reports


def read_table_text(path: Path) -> str:
    """Reads UTF-8 text, with or without byte order mark.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, or ``E_ENCODING`` with the line.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{path} must be a readable file, but {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        is_utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "UTF-16" if is_utf_16 else f"the byte 0x{content[error.start]:02X}"
        raise CtscribeError(
            "E_ENCODING",
            f"{path} must be UTF-8 text, but line {line} holds {found}, as files saved in another "
            "encoding do",
        ) from error


KEYS = ("VolumeName", "AccessionNo", "volume")
"""Columns that can name a report, the first one found is used."""
_TEXTS = ("report_text", "report", "generated_report", "prediction", "text")
_SECTIONS = (("Findings_EN", "Impressions_EN"), ("findings", "impression"))
_NOT_GIVEN = "Not given."
_NUM_TOLD = 5


@final
@dataclass(frozen=True)
class ReportTable:
    """Reports with their names, in the order of the file."""

    key: str
    """One of `KEYS`."""
    columns: tuple[str, ...]
    """The column of the whole report, or those of Findings and Impression."""
    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    """For each report the cells of ``columns`` as they stand; "Not given." is empty."""
    others: tuple[Mapping[str, str], ...]
    """For each report the cells of all further columns, stripped."""


def read_report_table(path: Path, *, allow_empty: bool = False) -> ReportTable:
    """Reads a CSV of reports.

    Args:
        path: UTF-8, with or without byte order mark. It has ``VolumeName`` or ``AccessionNo``,
            and either one text column (``report_text``, ``report``, ``generated_report``,
            ``prediction``, ``text``, or the only other column whatever its name) or
            ``Findings_EN`` and ``Impressions_EN`` (``findings`` and ``impression``).
            In place of ``VolumeName``, own data may have ``volume``. Cells may hold line breaks.
        allow_empty: Whether reports may be without text.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, ``E_ENCODING``, ``E_CSV``, ``E_COLUMN``,
            ``E_DUPLICATE`` or ``E_EMPTY_REPORT``, with the numbers of the rows.
    """
    rows = _parsed_rows(path, read_table_text(path))
    _, header = next(rows, (0, []))
    return report_table(path, header, rows, allow_empty=allow_empty)


def report_table(
    path: Path,
    header: Sequence[str],
    rows: Iterable[tuple[int, Sequence[str]]],
    *,
    allow_empty: bool,
) -> ReportTable:
    """As `read_report_table`, of cells in memory.

    Args:
        path: What a refusal calls the table.
        header: Names of the columns.
        rows: Cells, each row with its number and as long as the header.
        allow_empty: Whether reports may be without text.

    Raises:
        CtscribeError: As `read_report_table` for what stands in it.
    """
    key, columns = _choose_columns(path, header)
    numbers, names, cells, others = [], [], [], []
    for number, row in rows:
        numbers.append(number)
        named = dict(zip(header, row, strict=True))
        names.append(named.pop(key).strip())
        cells.append(tuple(_cell(named.pop(column)) for column in columns))
        others.append({column: cell.strip() for column, cell in named.items()})
    _require_names(path, key, names, numbers)
    texts = [any(map(str.strip, parts)) for parts in cells]
    empty = [number for number, has_text in zip(numbers, texts, strict=True) if not has_text]
    if empty and not allow_empty:
        raise CtscribeError(
            "E_EMPTY_REPORT",
            f"every report in {path} must have text, but {_told(empty)} in {' and '.join(columns)}",
        )
    return ReportTable(key, columns, tuple(names), tuple(cells), tuple(others))


def read_named_cells(path: Path, required: Iterable[str]) -> dict[str, dict[str, str]]:
    """Reads a CSV of anything else about reports: name → column → cell, stripped.

    Args:
        path: As for `read_report_table`, with one of `KEYS`.
        required: Columns that must be there.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, ``E_ENCODING``, ``E_CSV``, ``E_COLUMN`` or
            ``E_DUPLICATE``.
    """
    rows = _parsed_rows(path, read_table_text(path))
    _, header = next(rows, (0, []))
    key = next((name for name in KEYS if name in header), None)
    _require_once(path, header)
    lacking = [name for name in required if name not in header]
    if key is None or lacking:
        raise CtscribeError(
            "E_COLUMN",
            f"{path} must have VolumeName or AccessionNo and columns as CT-RATE has them, but "
            f"lacks {(lacking[0] if key else KEYS[0])!r}",
        )
    numbers, cells = [], []
    for number, row in rows:
        numbers.append(number)
        cells.append({column: cell.strip() for column, cell in zip(header, row, strict=True)})
    names = [named[key] for named in cells]
    _require_names(path, key, names, numbers)
    return dict(zip(names, cells, strict=True))


def _parsed_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The header, then rows of as many cells, each with its number; empty ones are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    num_columns = 0
    try:
        for number, row in enumerate(reader, 1):
            num_columns = num_columns or len(row)
            if row and len(row) != num_columns:
                raise CtscribeError(
                    "E_CSV",
                    f"{path} must have {num_columns} cells in each row, but row {number} has "
                    f"{len(row)}",
                )
            if row:
                yield number, row
    except csv.Error as error:
        raise CtscribeError(
            "E_CSV",
            f"{path} must be a CSV file, but at line {reader.line_num} {error}",
        ) from error


def _choose_columns(path: Path, header: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    _require_once(path, header)
    key = next((name for name in KEYS if name in header), None)
    if key:
        whole = next((name for name in _TEXTS if name in header), None)
        parts = next((both for both in _SECTIONS if set(both) <= set(header)), None)
        others = [name for name in header if name != key]
        known = [name for both in _SECTIONS for name in both]
        if whole:
            return key, (whole,)
        if parts:
            return key, parts
        if len(others) == 1 and others[0] not in known:
            return key, (others[0],)
    found = ", ".join(header)[:200] or "no header"
    raise CtscribeError(
        "E_COLUMN",
        f"{path} must have VolumeName or AccessionNo, and report_text or Findings_EN and "
        f"Impressions_EN, parted by commas, but has {found}",
    )


def _require_once(path: Path, header: Sequence[str]) -> None:
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise CtscribeError(
            "E_COLUMN", f"{path} must name each column once, but has two {repeated[:80]!r}"
        )


def _cell(cell: str) -> str:
    return "" if cell.strip() == _NOT_GIVEN else cell


def _require_names(path: Path, key: str, names: Sequence[str], numbers: Sequence[int]) -> None:
    if not names:
        raise CtscribeError("E_EMPTY_REPORT", f"{path} must hold reports, but has only a header")
    unnamed = [number for number, name in zip(numbers, names, strict=True) if not name]
    if unnamed:
        raise CtscribeError(
            "E_CSV", f"every report in {path} must have a {key}, but {_told(unnamed)}"
        )
    first: dict[str, int] = {}
    for number, name in zip(numbers, names, strict=True):
        if first.setdefault(name, number) != number:
            raise CtscribeError(
                "E_DUPLICATE",
                f"{path} must have each {key} once, but rows {first[name]} and {number} have the "
                "same",
            )


def _told(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]} has none"
    shown = ", ".join(map(str, numbers[:_NUM_TOLD]))
    more = f" and {len(numbers) - _NUM_TOLD} more" if len(numbers) > _NUM_TOLD else ""
    return f"rows {shown}{more} have none"


ReadFindings = Callable[[Sequence[str]], Bool[np.ndarray, "texts 18"]]
"""Texts → whether each states each of `FINDINGS`."""


def label_csv(
    reports_path: Path,
    labels_path: Path,
    *,
    read: ReadFindings = label_reports,
    evidence_path: Path | None = None,
) -> int:
    """Writes the 18 labels of every report, columns in CT-RATE's order.

    Args:
        reports_path: See `read_report_table`.
        labels_path: CSV to write, keyed and ordered as the input is.
        read: Who reads the findings; the rules unless another reader is given.
        evidence_path: Where to write, for each report, the mentions the rules find, as JSONL:
            finding, status, column, start and end in that column's cell, the words, the sentence.

    Returns:
        Number of reports.

    Raises:
        CtscribeError: As `read_report_table`, ``E_WRITE``.
    """
    table = read_report_table(reports_path)
    # The sections stand apart, so that no sentence joins them.
    stated = read(["\n".join(part for part in cells if part) for cells in table.cells])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((table.key, *FINDINGS))
    writer.writerows(
        (name, *row.astype(int)) for name, row in zip(table.names, stated, strict=True)
    )
    if evidence_path is not None:
        write_text(evidence_path, "".join(json.dumps(row) + "\n" for row in _evidence(table)))
    write_text(labels_path, text.getvalue())
    return len(table.names)


def _evidence(table: ReportTable) -> list[dict[str, Any]]:
    return [
        {
            table.key: name,
            "mentions": [
                {
                    "finding": mention.finding,
                    "status": mention.status,
                    "column": column,
                    "start": mention.span[0],
                    "end": mention.span[1],
                    "words": cell[slice(*mention.span)],
                    "sentence": mention.sentence,
                }
                for column, cell in zip(table.columns, cells, strict=True)
                for mention in find_mentions(cell)
            ],
        }
        for name, cells in zip(table.names, table.cells, strict=True)
    ]
