"""On which side a sentence places what it names."""

import re
from collections.abc import Iterable

_RIGHT = re.compile(r"\bright\b", re.IGNORECASE)
_LEFT = re.compile(r"\bleft\b(?!\s+(?:atri|ventric|anterior\s+desc))", re.IGNORECASE)
_BOTH = re.compile(r"\bbilateral(?:ly)?\b|\bboth\b(?!\s+main)|\beach\s+side", re.IGNORECASE)


def sides_named(sentences: Iterable[str]) -> frozenset[str]:
    """The sides, ``right`` and ``left``, that sentences name together; empty where none does."""
    sides: set[str] = set()
    for sentence in sentences:
        if _BOTH.search(sentence):
            return frozenset({"right", "left"})
        sides.update(
            name for name, word in (("right", _RIGHT), ("left", _LEFT)) if word.search(sentence)
        )
    return frozenset(sides)
