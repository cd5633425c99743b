"""What a code means in general."""

from typing import NamedTuple


class Code(NamedTuple):
    """What a code means in general; the sentence of an error says it of one case."""

    meaning: str
    remedy: str


def parse(table: str) -> dict[str, Code]:
    """Reads pairs of lines: the code with its meaning, then its remedy, indented."""
    lines = table.strip().splitlines()
    rows = (first.split(maxsplit=1) for first in lines[::2])
    return {
        code: Code(meaning, remedy.strip())
        for (code, meaning), remedy in zip(rows, lines[1::2], strict=True)
    }
