"""A table of values with intervals, before it is written down in any form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from ctscribe.base.tables import format_csv, format_markdown, markdown_text

UNDEFINED = "–"


@final
@dataclass(frozen=True)
class Cell:
    """A value with its interval; ``mark`` is printed behind it."""

    value: float
    low: float
    high: float
    mark: str = ""

    def __str__(self) -> str:
        value, low, high = map(number, (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]{self.mark}"


@final
@dataclass(frozen=True)
class Table:
    """Rows of cells and texts; ``rules`` are the indices of rows that begin a new group."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()


def number(value: float) -> str:
    """Three decimals, or three digits and a power of ten where that would be a long number."""
    return f"{value:.3f}" if abs(value) < 10_000 else f"{value:.2e}".replace("e+0", "e")


def cell_of(score: Mapping[str, float | None] | None) -> Cell | str:
    """A score as a cell: alone where it has no interval, a dash where it is undefined."""
    if score is None or score["value"] is None:
        return UNDEFINED
    if score["low"] is None or score["high"] is None:
        return number(score["value"])
    return Cell(score["value"], score["low"], score["high"])


def to_markdown(table: Table) -> str:
    """A pipe table with aligned columns, its title above and its notes below."""
    notes = [f"- {markdown_text(note)}" for note in table.notes]
    lines = format_markdown(table.columns, table.rows)
    return "\n".join([f"## {table.title}", "", *lines, "", *notes]) + "\n"


def to_csv(table: Table) -> str:
    """One line per row, three numeric columns per interval; notes are left to the other forms.

    Texts that a spreadsheet would run as a formula are preceded by an apostrophe.
    """
    measured = [any(isinstance(row[i], Cell) for row in table.rows) for i in range(_width(table))]
    header: list[str] = []
    for name, has_interval in zip(table.columns, measured, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has_interval else [name]
    lines = [[_formula_safe(name) for name in header]]
    for row in table.rows:
        fields: list[str] = []
        for cell, has_interval in zip(row, measured, strict=True):
            if isinstance(cell, Cell):
                fields += [f"{bound:.6f}" for bound in (cell.value, cell.low, cell.high)]
            else:
                fields += [_formula_safe(cell), "", ""] if has_interval else [_formula_safe(cell)]
        lines.append(fields)
    return format_csv(lines)


def to_latex(table: Table) -> str:
    """A ``booktabs`` table; intervals are set smaller behind their values."""
    body: list[str] = []
    for index, row in enumerate(table.rows):
        if index in table.rules:
            body.append(r"\midrule")
        body.append(" & ".join(_latex_cell(cell) for cell in row) + r" \\")
    notes = [rf"\par\footnotesize {_latex_text(note)}" for note in table.notes]
    return (
        "\n".join(
            [
                r"\begin{table*}",
                r"\centering\small",
                rf"\caption{{{_latex_text(table.title)}}}",
                rf"\begin{{tabular}}{{l{'r' * (_width(table) - 1)}}}",
                r"\toprule",
                " & ".join(_latex_text(name) for name in table.columns) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *notes,
                r"\end{table*}",
            ]
        )
        + "\n"
    )


def _width(table: Table) -> int:
    return len(table.columns)


def _formula_safe(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "†": r"\textdagger{}",
    "β": r"$\beta$",
    "α": r"$\alpha$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex_cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return _latex_text(cell)
    bounds = (cell.value, cell.low, cell.high)
    value, low, high = (number(bound).replace("-", "$-$") for bound in bounds)
    return rf"{value}{_latex_text(cell.mark)} {{\scriptsize [{low}, {high}]}}"
