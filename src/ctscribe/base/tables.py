"""Tables as files: CSV read and written, Markdown written.

Rows are counted as a spreadsheet shows them: the header is row 1.
"""

import csv
import difflib
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import open_text
from ctscribe.base.outside_text import nfc

Cells = Mapping[str, str]
"""One row, by column."""
MAX_COLUMNS = 16_384
"""The limit of spreadsheet programs."""
_MAX_ROWS_NAMED = 5
_SHORT = 16
"""Cells of up to so many characters repeat, so equal ones share one string in memory."""
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
"""A cell that is a number."""
csv.field_size_limit(sys.maxsize)  # a report may be longer than the module expects


@final
@dataclass(frozen=True)
class CellTable:
    """The cells of a file as they stand."""

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[int, Cells]
    """By row number; blank rows are left out."""

    def by_name(self, column: str) -> dict[str, Cells]:
        """The rows by the name in one column, which each must have and no two share.

        Names are stripped and in Unicode's composed form.

        Raises:
            CtscribeError: ``E_CSV`` or ``E_DUPLICATE``.
        """
        unnamed = [number for number, cells in self.rows.items() if not cells[column].strip()]
        if unnamed:
            raise CtscribeError(
                "E_CSV", f"every row of {self.path} must have a {column}, but {tell_rows(unnamed)}"
            )
        first: dict[str, int] = {}
        for number, cells in self.rows.items():
            before = first.setdefault(nfc(cells[column].strip()), number)
            if before != number:
                raise CtscribeError(
                    "E_DUPLICATE",
                    f"{self.path} must have each {column} once, but rows {before} and {number} "
                    "have the same",
                )
        return {name: self.rows[number] for name, number in first.items()}


@final
class _Row(Mapping[str, str]):
    """The cells of one row, in a third of the memory of a dictionary."""

    __slots__ = ("_cells", "_places")

    def __init__(self, places: Mapping[str, int], cells: tuple[str, ...]) -> None:
        self._places, self._cells = places, cells

    def __getitem__(self, column: str) -> str:
        return self._cells[self._places[column]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._cells)


def read_csv(path: Path, code: str | None = None, keep: Collection[str] | None = None) -> CellTable:
    """Reads columns parted by commas and named once each; cells may hold line breaks.

    The apostrophe that `format_csv` puts before formulas is removed. Only the columns in ``keep``
    are held in memory; None holds all.

    Raises:
        CtscribeError: As `read_text`; ``code``, or else ``E_COLUMN`` for the header and ``E_CSV``
            for a row.
    """
    columns, rows = each_csv_row(path, code, keep)
    return CellTable(path, columns, dict(rows))


def each_csv_row(
    path: Path, code: str | None = None, keep: Collection[str] | None = None
) -> tuple[tuple[str, ...], Iterator[tuple[int, Cells]]]:
    """As `read_csv`, for files too large for memory: the columns, and the rows as they are read."""
    lines = _each_line(path, code)
    header = [cell.strip() for cell in next(lines)[1]]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise CtscribeError(
            code or "E_COLUMN",
            f"{path} must have columns parted by commas, but has {header[0][:80]!r}",
        )
    check_header(path, header, code or "E_COLUMN")
    return tuple(header), _each_row(path, code or "E_CSV", keep, header, lines)


def _each_row(
    path: Path,
    code: str,
    keep: Collection[str] | None,
    header: Sequence[str],
    lines: Iterator[tuple[int, list[str]]],
) -> Iterator[tuple[int, Cells]]:
    kept = [place for place, name in enumerate(header) if keep is None or name in keep]
    places = {header[place]: number for number, place in enumerate(kept)}
    same: dict[str, str] = {}
    for number, cells in lines:
        if len(cells) not in (0, len(header)):
            raise CtscribeError(
                code,
                f"{path} must have {len(header)} cells in each row, one per column, but row "
                f"{number} has {len(cells)}",
            )
        if any(map(str.strip, cells)):
            texts = (_unescape_formula(cells[place]) for place in kept)
            shared = (same.setdefault(t, t) if len(t) <= _SHORT else t for t in texts)
            yield number, _Row(places, tuple(shared))


def _each_line(path: Path, code: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yields the header, empty in an empty file, then each row's cells, numbered from 1."""
    number = 0
    with open_text(path, newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            yield 1, list(map(_unescape_formula, next(reader, [])))
            number = 1
            for number, cells in enumerate(reader, 2):
                yield number, cells
        except csv.Error as error:
            raise CtscribeError(
                code or "E_CSV", f"{path} must be a CSV file, but row {number + 1}: {error}"
            ) from error


def count_columns(path: Path) -> int:
    """How many cells the first row of a CSV file has.

    Raises:
        CtscribeError: As `read_csv`.
    """
    return len(next(_each_line(path, None))[1])


def read_single_column(path: Path) -> list[str]:
    """The cells of a CSV file of one column that has no header, blank lines left out.

    Raises:
        CtscribeError: As `read_text`, and ``E_CSV`` for a line of several cells.
    """
    cells = [(number, row) for number, row in _each_line(path, None) if row]
    for number, row in cells:
        if len(row) > 1:
            raise CtscribeError(
                "E_CSV", f"{path} must have one cell in each row, but row {number} has {len(row)}"
            )
    return [_unescape_formula(row[0]) for _, row in cells]


def check_header(path: Path, columns: Sequence[str], code: str) -> None:
    """Refuses a table that names a column twice, or more than `MAX_COLUMNS`."""
    if len(columns) > MAX_COLUMNS:
        raise CtscribeError(
            code, f"{path} must have at most {MAX_COLUMNS} columns, but has {len(columns)}"
        )
    repeated = next((name for name, times in Counter(columns).items() if times > 1), None)
    if repeated is not None:
        raise CtscribeError(
            code, f"{path} must name each column once, but has two {repeated[:80]!r}"
        )


def check_columns(
    table: CellTable,
    required: Iterable[str],
    known: Collection[str] | None = None,
    code: str = "E_COLUMN",
) -> None:
    """Refuses a table that lacks a required column, or has one that is not in ``known``.

    None as ``known`` allows any further column. The error has this code, and names the column that
    may have been meant.
    """
    required = tuple(required)
    for column in required:
        if column not in table.columns:
            near = _nearest(column, set(table.columns) - set(required))
            found = f" and has {near!r}" if near else ""
            raise CtscribeError(
                code, f"{table.path} must have the column {column!r}, but lacks it{found}"
            )
    for column in table.columns:
        if known is not None and column not in known:
            near = _nearest(column, known)
            meant = f" (did you mean {near!r}?)" if near else ""
            raise CtscribeError(
                code,
                f"{table.path} must have no further columns, but {column[:40]!r} is unknown{meant}",
            )


def _nearest(column: str, others: Iterable[str]) -> str | None:
    lowered = {name.lower(): name for name in sorted(others)}
    near = difflib.get_close_matches(column.lower(), lowered, 1)
    return lowered[near[0]][:40] if near else None


def tell_rows(numbers: Sequence[int]) -> str:
    """The end of a sentence, such as ``rows 3, 4 have none``; it names at most five rows."""
    if len(numbers) == 1:
        return f"row {numbers[0]} has none"
    shown = ", ".join(map(str, numbers[:_MAX_ROWS_NAMED]))
    more = f" and {len(numbers) - _MAX_ROWS_NAMED} more" if len(numbers) > _MAX_ROWS_NAMED else ""
    return f"rows {shown}{more} have none"


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows, the header first, as the text of a CSV file.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, which `read_csv`
    removes again; numbers stay as they are.
    """
    lines: list[str] = []
    # The csv module quotes a lone carriage return only if it is in the line terminator.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerows(map(_escape_formula, row) for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def _escape_formula(cell: object) -> object:
    is_formula = isinstance(cell, str) and _FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _unescape_formula(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def format_markdown(
    columns: Sequence[str], rows: Iterable[Sequence[object]], num_texts: int = 1
) -> list[str]:
    """The lines of a pipe table, padded so that they read as a table in plain text too.

    The first ``num_texts`` columns hold texts; the others hold numbers and are aligned right.
    Characters with a meaning in Markdown are escaped.
    """
    grid = [
        [markdown_text(str(cell)).replace("|", "\\|") for cell in row] for row in (columns, *rows)
    ]
    widths = [max(len(row[i]) for row in grid) for i in range(len(columns))]
    rule = [
        "-" * width if i < num_texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    grid.insert(1, rule)
    return [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in grid
    ]


def markdown_text(text: str) -> str:
    """A text on one line that Markdown shows as it stands."""
    return " ".join(text.replace("\\", "\\\\").replace("<", "&lt;").split())
