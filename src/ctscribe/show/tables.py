"""A table of values with intervals, and its forms: Markdown, CSV and LaTeX.

In: scores as dictionaries with ``value``, ``low`` and ``high``. Out: texts and files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from ctscribe.base.files import write_text
from ctscribe.base.tables import format_csv, format_markdown, markdown_text

Form = Literal["markdown", "csv", "latex"]


UNDEFINED = "–"
TOO_FEW = "too few patients"
IN_BRACKETS = (
    "in brackets the 95 % interval, by the jackknife over patients, or that they are too few for "
    "one that could be held."
)
"""What a note of a table says of them."""


@final
@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval; ``mark`` is printed behind it.

    Without bounds there are too few patients for an interval.
    """

    value: float
    low: float | None
    high: float | None
    mark: str = ""

    @property
    def bounds(self) -> str:
        """What stands in the brackets."""
        if self.low is None or self.high is None:
            return TOO_FEW
        return f"{_number(self.low)}, {_number(self.high)}"

    def __str__(self) -> str:
        return f"{_number(self.value)} [{self.bounds}]{self.mark}"


@final
@dataclass(frozen=True)
class Table:
    """Rows of values and texts; ``rules`` are the indices of rows that begin a new group."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value | str, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()


def value_of(score: Mapping[str, Any] | None) -> Value | str:
    """A score for a table: alone where it has no interval, a dash where it is undefined."""
    if score is None or score["value"] is None:
        return UNDEFINED
    if score["low"] is None and "too_few_patients" not in score:
        return _number(score["value"])
    return Value(score["value"], score["low"], score["high"])


def estimate_of(score: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
    """Value, lower and upper bound to draw, None where it is undefined.

    Without an interval both bounds are the value, so that no whiskers are drawn.
    """
    if score is None or (value := score["value"]) is None:
        return None
    low, high = (value if score[bound] is None else score[bound] for bound in ("low", "high"))
    return value, low, high


def written_tables(tables: Sequence[Table], form: Form) -> str:
    """All tables one after the other."""
    write, _ = FORMS[form]
    return "\n".join(map(write, tables))


def write_tables(folder: Path, tables: Sequence[Table], form: Form) -> list[Path]:
    """Writes each table to a file named by its title."""
    write, suffix = FORMS[form]
    paths = []
    for table in tables:
        name = re.sub(r"[^a-z0-9]+", "_", table.title.lower()).strip("_")
        paths.append(folder / f"{name}{suffix}")
        write_text(paths[-1], write(table))
    return paths


def to_markdown(table: Table) -> str:
    """A pipe table with aligned columns, its title above and its notes below."""
    notes = [f"- {markdown_text(note)}" for note in table.notes]
    lines = format_markdown(table.columns, table.rows)
    return "\n".join([f"## {table.title}", "", *lines, "", *notes]) + "\n"


def to_csv(table: Table) -> str:
    """One line per row, three numeric columns per interval; notes are left to the other forms."""
    columns = range(len(table.columns))
    measured = [any(isinstance(row[i], Value) for row in table.rows) for i in columns]
    header: list[str] = []
    for name, has_interval in zip(table.columns, measured, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has_interval else [name]
    lines = [header]
    for row in table.rows:
        fields: list[str] = []
        for cell, has_interval in zip(row, measured, strict=True):
            if isinstance(cell, Value):
                bounds = (cell.value, cell.low, cell.high)
                fields += ["" if bound is None else f"{bound:.6f}" for bound in bounds]
            else:
                fields += [cell, "", ""] if has_interval else [cell]
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
                rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
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


FORMS = {"markdown": (to_markdown, ".md"), "csv": (to_csv, ".csv"), "latex": (to_latex, ".tex")}
"""How each form is written, and its suffix."""


def _number(value: float) -> str:
    """Three decimals, or three digits and a power of ten where that would be a long number."""
    return f"{value:.3f}" if abs(value) < 10_000 else f"{value:.2e}".replace("e+0", "e")


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
    "‡": r"\textdaggerdbl{}",
    "β": r"$\beta$",
    "α": r"$\alpha$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex_cell(cell: Value | str) -> str:
    if isinstance(cell, str):
        return _latex_text(cell)
    value, bounds = (text.replace("-", "$-$") for text in (_number(cell.value), cell.bounds))
    return rf"{value}{_latex_text(cell.mark)} {{\scriptsize [{bounds}]}}"
