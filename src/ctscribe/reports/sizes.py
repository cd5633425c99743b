"""Sizes in millimetres, read from report text."""

import re

from ctscribe.reports.labeler import find_mentions

_NUMBER = r"\d{1,3}(?:[.,]\d{1,2})?"
_SIZE = re.compile(
    rf"(?<![\d.:])(?P<numbers>{_NUMBER}(?:\s*(?:x|×|\*|-|–|and|to)\s*{_NUMBER}){{0,2}})"
    r"\s*-?\s*(?P<unit>mm|cm|milimet\w*|millimet(?:er|re)s?|centimet(?:er|re)s?)\b",
    re.IGNORECASE,
)
_PRIOR = re.compile(
    r"[^,.;]{0,40}\b(?:in|on|at|from)\s+(?:the\s+)?(?:previous|prior|old|earlier|last)\b"
    r"|[^,.;]{0,25}\b(?:previously|formerly)\b",
    re.IGNORECASE,
)
_PRIOR_BEFORE = re.compile(
    r"\b(?:previous(?:ly)?|prior|was|were|old|formerly|from)\s+(?:\w+\s+){0,3}\Z", re.IGNORECASE
)


def sizes_mm(text: str) -> list[float]:
    """Every current size in ``text``: the largest diameter of each measurement, in mm.

    Dates, density values and sizes of an earlier examination are not sizes.
    """
    found = []
    for match in _SIZE.finditer(text):
        if _PRIOR.match(text, match.end()) or _PRIOR_BEFORE.search(text[: match.start()]):
            continue
        numbers = [float(n.replace(",", ".")) for n in re.findall(_NUMBER, match["numbers"])]
        factor = 10.0 if match["unit"].lower().startswith("c") else 1.0
        found.append(factor * max(numbers))
    return found


def largest_nodule_mm(text: str) -> float | None:
    """Largest current diameter stated with a lung nodule or mass, in mm; None if unmeasured."""
    sentences = {
        mention.sentence
        for mention in find_mentions(text)
        if mention.finding == "Lung nodule" and mention.status == "present"
    }
    return max((size for sentence in sentences for size in sizes_mm(sentence)), default=None)
