"""Which differences between runs hold."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.tables.systems import FOUND, LANGUAGE, reference_notes
from ctscribe.tables.table import UNDEFINED, Cell, Table

HOLDS = "*"
TITLES = LANGUAGE | FOUND


def differences_table(base: str, comparison: Mapping[str, Any]) -> Table:
    """Metrics as rows, systems as columns; each cell is the system's score minus the base's.

    Args:
        base: Name of the system the others are compared with.
        comparison: What `evaluate.compare` returns.
    """
    differences, n = comparison["differences"], comparison["n"]
    metrics = [name for name in TITLES if any(name in rows for rows in differences.values())]
    rows = tuple(
        (TITLES[metric], *(_cell(found.get(metric)) for found in differences.values()))
        for metric in metrics
    )
    notes = (
        f"{n['scans']} scans of {n['patients']} patients; in brackets the 95 % interval over "
        f"{n['resamples']} paired resamples of patients (seed {n['seed']}).",
        f"{HOLDS} The difference holds: p < {comparison['alpha']:g} by approximate randomisation "
        f"over patients ({n['trials']} trials), adjusted by Holm over all {n['family']} "
        "comparisons.",
        *reference_notes(n),
        RESEARCH_USE,
    )
    return Table(f"Differences from {base}", ("Metric", *differences), rows, notes)


def table_3(base: str, comparison: Mapping[str, Any]) -> Table:
    """An experiment's `differences_table`."""
    table = differences_table(base, comparison)
    return replace(table, title=f"Table 3. {table.title}")


def _cell(found: Mapping[str, Any] | None) -> Cell | str:
    if found is None or found["low"] is None:
        return UNDEFINED
    mark = HOLDS if found["holds"] else ""
    return Cell(found["difference"], found["low"], found["high"], mark)
