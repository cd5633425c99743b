"""Tables 1 and 2, and one run's scores, as Markdown, CSV and LaTeX.

Systems are rows and metrics are columns: a metric is compared down one column, and further
baselines make a table longer, not wider.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, final

from ctscribe import RESEARCH_USE

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "coverage": "Coverage",
    "precision": "Precision",
    "label_accuracy": "Accuracy",
}
"""Column titles by the key `evaluate.scores` writes; more is better in each."""

BASELINES = {
    "constant_report": "Constant report",
    "all_normal": "All-normal report",
    "other_patient": "Another patient's report",
    "label_retrieval": "Retrieval by true labels (oracle, not blind)",
}
"""Row titles by the key `evaluate.scores` writes."""

ORACLES = frozenset({"label_retrieval"})
"""Baselines that see the true labels, so a variant need not beat them."""

Scores = Mapping[str, Any]
"""What `evaluate.scores` writes, and ``gap`` = {value, low, high} in nats per token if measured."""

GAP = "Mismatch gap"
BEATS_BLIND = "†"
UNDEFINED = "–"
_BOUNDS = ("value", "low", "high")


@final
@dataclass(frozen=True)
class Cell:
    """A value with its interval; ``mark`` is printed behind it."""

    value: float
    low: float
    high: float
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]{self.mark}"


@final
@dataclass(frozen=True)
class Table:
    """Rows of cells and texts; ``rules`` are the indices of rows that begin a new group."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()


def table_1(variants: Mapping[str, Sequence[Scores]], beta: float) -> Table:
    """The paper's Table 1 with precision, mismatch gap and the blind baselines.

    Args:
        variants: Row title, e.g. ``Origin``, to its scores, one per training seed.
        beta: Weight of the negatives where a variant has any.
    """
    return _table(f"Table 1. What negatives change (β = {beta:g})", "System", variants)


def table_2(betas: Mapping[float, Sequence[Scores]], strategy: str) -> Table:
    """The paper's Table 2: the weight β of the negatives; 0 is Origin.

    Args:
        betas: Weight to its scores, one per training seed.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    systems = {f"β = {beta:g}": results for beta, results in sorted(betas.items())}
    return _table(f"Table 2. Weight of the negatives ({strategy})", "Weight", systems)


def scores_table(scores: Scores) -> str:
    """One run's scores beside the blind baselines, as Markdown."""
    return to_markdown(_table("Scores", "System", {"Model": [scores]}))


def to_markdown(table: Table) -> str:
    """A pipe table with aligned columns, its title above and its notes below."""
    grid = [[_markdown_cell(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in grid
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    notes = [f"- {_markdown_text(note)}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *lines, "", *notes]) + "\n"


def to_csv(table: Table) -> str:
    """One line per row, three numeric columns per interval; notes are left to the other forms.

    Texts that a spreadsheet would run as a formula are preceded by an apostrophe.
    """
    measured = [any(isinstance(row[i], Cell) for row in table.rows) for i in range(_width(table))]
    header: list[str] = []
    for name, has_interval in zip(table.columns, measured, strict=True):
        header += [name, f"{name} low", f"{name} high"] if has_interval else [name]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_formula_safe(name) for name in header)
    for row in table.rows:
        fields: list[str] = []
        for cell, has_interval in zip(row, measured, strict=True):
            if isinstance(cell, Cell):
                fields += [f"{bound:.6f}" for bound in (cell.value, cell.low, cell.high)]
            else:
                fields += [_formula_safe(cell), "", ""] if has_interval else [_formula_safe(cell)]
        writer.writerow(fields)
    return buffer.getvalue()


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


def _table(title: str, corner: str, systems: Mapping[str, Sequence[Scores]]) -> Table:
    baselines = next(iter(systems.values()))[0]["baselines"]
    with_gap = any("gap" in scores for results in systems.values() for scores in results)
    blind = [baselines[name]["coverage"]["high"] for name in baselines.keys() - ORACLES]
    rows: list[tuple[Cell | str, ...]] = []
    for name, results in systems.items():
        cells = _cells([scores["model"] for scores in results])
        cells["coverage"] = _marked(cells["coverage"], blind)
        gaps = [scores["gap"] for scores in results if "gap" in scores]
        rows.append((name, *cells.values(), *_gap_column(with_gap, gaps)))
    for name, scores in baselines.items():
        rows.append((BASELINES[name], *_cells([scores]).values(), *_gap_column(with_gap, [])))
    return Table(
        title,
        (corner, *METRICS.values(), *([GAP] if with_gap else [])),
        tuple(rows),
        _notes(systems, with_gap),
        rules=(len(systems),),
    )


def _gap_column(shown: bool, gaps: Sequence[Mapping[str, float]]) -> list[Cell | str]:
    if not shown:
        return []
    return [_mean(gaps) if gaps else UNDEFINED]


def _cells(scores: Sequence[Mapping[str, Any]]) -> dict[str, Cell | str]:
    return {metric: _mean([each[metric] for each in scores]) for metric in METRICS}


def _mean(estimates: Sequence[Mapping[str, float | None]]) -> Cell | str:
    """Mean over seeds of value and bounds; a score without an interval is printed alone."""
    value, low, high = (_mean_of([e[bound] for e in estimates]) for bound in _BOUNDS)
    if value is None:
        return UNDEFINED
    return f"{value:.3f}" if low is None or high is None else Cell(value, low, high)


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _marked(coverage: Cell | str, blind: Sequence[float | None]) -> Cell | str:
    known = [high for high in blind if high is not None]
    if isinstance(coverage, Cell) and len(known) == len(blind) and coverage.low > max(known):
        return replace(coverage, mark=BEATS_BLIND)
    return coverage


def _notes(systems: Mapping[str, Sequence[Scores]], with_gap: bool) -> tuple[str, ...]:
    first = next(iter(systems.values()))[0]
    n = first["n"]
    notes = [
        f"{n['scans']} scans of {n['patients']} patients; in brackets the 95 % interval over "
        f"{n['resamples']} resamples of patients (seed {n['seed']}).",
        f"{BEATS_BLIND} Coverage whose lower bound lies above every blind baseline's upper bound.",
    ]
    if with_gap:
        notes.append(
            f"{GAP}: cross entropy of the true report on another patient's volume minus on the "
            "own, in nats per token; 0 means the scan is not looked at."
        )
    notes += [_seed_note(name, results) for name, results in systems.items() if len(results) > 1]
    signatures: dict[str, list[str]] = {}
    for metric, title in METRICS.items():
        # Without its name, the signature of BLEU-1 is that of BLEU-4.
        signature = first["model"][metric]["signature"].removeprefix(f"{metric}|")
        signatures.setdefault(signature, []).append(title)
    notes += [f"{', '.join(titles)}: {text}" for text, titles in signatures.items()]
    return (*notes, RESEARCH_USE)


def _seed_note(name: str, results: Sequence[Scores]) -> str:
    ranges = []
    for metric, title in METRICS.items():
        values = [scores["model"][metric]["value"] for scores in results]
        if None not in values:
            ranges.append(f"{title} {min(values):.3f} to {max(values):.3f}")
    return (
        f"{name}: values and bounds are means over {len(results)} training seeds; "
        f"range over seeds: {', '.join(ranges)}."
    )


def _width(table: Table) -> int:
    return len(table.columns)


def _markdown_text(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("<", "&lt;").split())


def _markdown_cell(cell: Cell | str) -> str:
    return _markdown_text(str(cell)).replace("|", "\\|")


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
    value, low, high = (f"{bound:.3f}".replace("-", "$-$") for bound in bounds)
    return rf"{value}{_latex_text(cell.mark)} {{\scriptsize [{low}, {high}]}}"
