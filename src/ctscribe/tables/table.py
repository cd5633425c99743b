"""A table of values with intervals, before it is written down in any form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

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


def cell_of(score: Mapping[str, float | None] | None) -> Cell | str:
    """A score as a cell: alone where it has no interval, a dash where it is undefined."""
    if score is None or score["value"] is None:
        return UNDEFINED
    if score["low"] is None or score["high"] is None:
        return f"{score['value']:.3f}"
    return Cell(score["value"], score["low"], score["high"])
