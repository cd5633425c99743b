"""Scores as tables, and tables as Markdown, CSV and LaTeX."""

from ctscribe.tables.breakdown import breakdown_tables
from ctscribe.tables.differences import differences_table, table_3
from ctscribe.tables.systems import BASELINES, METRICS, score_tables, table_1, table_2
from ctscribe.tables.table import UNDEFINED, Cell, Table, cell_of
from ctscribe.tables.written import to_csv, to_latex, to_markdown

__all__ = [
    "BASELINES",
    "METRICS",
    "UNDEFINED",
    "Cell",
    "Table",
    "breakdown_tables",
    "cell_of",
    "differences_table",
    "score_tables",
    "table_1",
    "table_2",
    "table_3",
    "to_csv",
    "to_latex",
    "to_markdown",
]
