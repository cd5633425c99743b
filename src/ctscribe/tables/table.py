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
