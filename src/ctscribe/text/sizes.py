"""Report text → the sizes that it states, mm, and size and side of the findings it affirms."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from ctscribe.text.labeler import Mention, find_mentions
from ctscribe.text.polarity import read_polarity
from ctscribe.text.sections import sentence_spans
from ctscribe.text.sides import sides_named

NODULE = "Lung nodule"
MEASURED = (
    "Pericardial effusion",
    "Lymphadenopathy",
    "Emphysema",
    "Lung opacity",
    "Pleural effusion",
    "Consolidation",
    NODULE,
)
"""Findings whose size is their own, unlike that of a heart, a vessel or a tube."""

TOLERANCE_MM, TOLERANCE_SHARE = 2.0, 0.2
"""A size is wrong when it is off by more than both: 2 mm, and a fifth of the true one."""

_NUMBER = r"\d{1,3}(?:[.,]\d{1,2})?"
_SIZE = re.compile(
    rf"(?<![\d.:])(?P<numbers>{_NUMBER}(?:\s*(?:x|×|\*|-|–)\s*{_NUMBER}){{0,2}})"
    r"\s*-?\s*(?P<unit>mm|cm|mill?imet(?!ric)\w*|centimet(?!ric)\w*)\b",
    re.IGNORECASE,
)
_EARLIER_AFTER = re.compile(
    r"[^,.;()]{0,40}\b(?:in|on|at|from)\s+(?:the\s+)?(?:previous|prior|old|earlier|last)\b",
    re.IGNORECASE,
)
_EARLIER_BEFORE = re.compile(
    r"\b(?:previous(?:ly)?|prior|was|were|old|formerly|from)\s+(?:\w+\s+){0,3}\Z", re.IGNORECASE
)
_NODULE = re.compile(r"nodul|\bmass|\blesion|\bmetasta", re.IGNORECASE)
_OTHER = re.compile(
    r"\blymph|\blap\b|effusion|fluid|consolid|cyst|aort|arter|calcul|stone|herni|bulla|atelec"
    r"|trunk|spleen|liver|kidney|adrenal|thyroid|diverticul|pericard|pneumothora",
    re.IGNORECASE,
)
_UNLABELLED = re.compile(
    r"\bcyst|\baort|\barter|calcul|\bstone|trunk|spleen|liver|kidney|adrenal|thyroid|diverticul"
    r"|pneumothora",
    re.IGNORECASE,
)
_MASS = re.compile(r"\bmass(?:es)?\b", re.IGNORECASE)
_LUNG = re.compile(r"\b(?:lungs?|lobes?|pulmonary|lingul|segment)", re.IGNORECASE)


def same_size(stated_mm: float, true_mm: float) -> bool:
    """Whether a stated size is within tolerance of the true one."""
    return abs(stated_mm - true_mm) <= max(TOLERANCE_MM, TOLERANCE_SHARE * true_mm)


def find_sizes(text: str) -> Iterator[tuple[float, tuple[int, int]]]:
    """The largest diameter of each current measurement in mm, and its start and end in ``text``.

    Dates, density values and sizes in an earlier examination are left out.
    """
    for match in _SIZE.finditer(text):
        before = text[max(0, match.start() - 60) : match.start()]
        if _EARLIER_AFTER.match(text, match.end()) or _EARLIER_BEFORE.search(before):
            continue
        numbers = [float(n.replace(",", ".")) for n in re.findall(_NUMBER, match["numbers"])]
        factor = 10.0 if match["unit"].lower().startswith("c") else 1.0
        yield factor * max(numbers), match.span()


def largest_nodule_mm(text: str) -> float | None:
    """Largest current diameter stated of a lung nodule or mass, in mm; None if unmeasured.

    A size belongs to the nearest thing named in its sentence.
    """
    return _largest_nodule_mm(_sized(text), find_mentions(text))


@final
@dataclass(frozen=True)
class _Sized:
    """A sentence that states sizes."""

    start: int
    """Its position in the report."""
    text: str
    sizes: tuple[tuple[float, tuple[int, int]], ...]
    """See `find_sizes`; positions are those in the sentence."""


def _sized(text: str) -> list[_Sized]:
    found = []
    for start, end in sentence_spans(text):
        if sizes := tuple(find_sizes(sentence := text[start:end])):
            found.append(_Sized(start, sentence, sizes))
    return found


def _largest_nodule_mm(sized: Iterable[_Sized], mentions: Iterable[Mention]) -> float | None:
    named = {
        mention.sentence
        for mention in mentions
        if mention.finding == NODULE and mention.status == "present"
    }
    return max(
        (
            size
            for sentence in sized
            if sentence.text in named or _states_lung_mass(sentence.text)
            for size, place in sentence.sizes
            if _distance(_NODULE, sentence.text, place) < _distance(_OTHER, sentence.text, place)
        ),
        default=None,
    )


@final
@dataclass(frozen=True)
class Extent:
    """Side and size of a finding in a report."""

    sides: frozenset[str]
    """See `sides_named`; empty where no side is named."""
    size_mm: float | None
    """Largest current diameter; None if it is not stated, or the finding is not in `MEASURED`."""


@lru_cache(maxsize=1 << 13)
def stated_extents(text: str) -> Mapping[str, Extent]:
    """Side and size of each finding that ``text`` affirms."""
    mentions = find_mentions(text)
    sizes = _sizes_by_finding(_sized(text), mentions)
    sentences: dict[str, list[str]] = {}
    for mention in mentions:
        if mention.status == "present":
            sentences.setdefault(mention.finding, []).append(mention.sentence)
    return {
        finding: Extent(sides_named(stated), sizes.get(finding))
        for finding, stated in sentences.items()
    }


def _sizes_by_finding(sized: Sequence[_Sized], mentions: Sequence[Mention]) -> dict[str, float]:
    """The largest size of each finding, where a size belongs to the nearest thing named."""
    found: dict[str, float] = {}
    for sentence in sized:
        end = sentence.start + len(sentence.text)
        named = [m for m in mentions if sentence.start <= m.span[0] < end]
        for size_mm, (first, last) in sentence.sizes if named else ():
            place = (sentence.start + first, sentence.start + last)
            nearest = min(named, key=lambda mention: _apart(mention.span, place))
            other = _distance(_UNLABELLED, sentence.text, (first, last))
            if nearest.status == "present" and _apart(nearest.span, place) < other:
                found[nearest.finding] = max(size_mm, found.get(nearest.finding, 0.0))
    nodule_mm = _largest_nodule_mm(sized, mentions)
    kept = {finding: size for finding, size in found.items() if finding in MEASURED}
    return kept if nodule_mm is None else kept | {NODULE: nodule_mm}


def _apart(span: tuple[int, int], place: tuple[int, int]) -> int:
    return max(span[0] - place[1], place[0] - span[1])


def _distance(pattern: re.Pattern[str], sentence: str, place: tuple[int, int]) -> float:
    return min(
        (float(_apart(match.span(), place)) for match in pattern.finditer(sentence)),
        default=float("inf"),
    )


def _states_lung_mass(sentence: str) -> bool:
    match = _MASS.search(sentence)
    if not match or not _LUNG.search(sentence):
        return False
    return read_polarity(sentence.lower()).status(*match.span()) == "present"
