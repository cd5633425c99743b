"""The sides and parts of the chest that a phrase names, and whether a denial covers a statement."""

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import NamedTuple

_RIGHT = r"\bright\b"
_LEFT = r"\bleft\b(?!\s+(?:atri|ventric|anterior\s+desc))"
_BOTH = (
    r"\bbilateral(?:ly)?\b|\bboth\b(?!\s+main)|\b(?:each|either)\s+side|\beither\s+lung|\bbibasal"
)
_SIDE = re.compile(rf"(?P<both>{_BOTH})|(?P<right>{_RIGHT})|(?P<left>{_LEFT})", re.IGNORECASE)
_PARTS = {
    "upper lobe": r"""upper(?:\s+(?:lobes?|zones?)|(?=(?:,|\s+and|\s+or)\s+(?:middle|lower)\s+lobe))
        |apicoposterior|ap(?:ex|ices|ical)\b""",
    "middle lobe": r"(?:middle|mid)\s+(?:lobes?|zones?)",
    "lingula": r"lingul\w*",
    "lower lobe": r"lower\s+(?:lobes?|zones?)|\w*basal\b|(?:lung\s+)?bas(?:e|es)\b",
    "paratracheal": r"(?:pre|para|retro)-?\s*(?:and\s+)?(?:para)?trach\w*",
    "subcarinal": r"(?:sub|infra)carinal",
    "aortopulmonary": r"aorto-?\s*pulmonary",
    "prevascular": r"prevascular",
    "paraaortic": r"para-?aortic|paraesophageal|paraoesophageal|paracardiac|(?:peri|pre)cardiac",
    "mediastinal": r"mediastin\w*",
    "hilar": r"(?:peri)?hil(?:ar|um|us|a|i)\b(?<!fatty\ hilus)(?<!fatty\ hilum)(?<!fat\ hilus)",
    "axillary": r"axill\w*|retropectoral|pectoral",
    "neck": r"supra-?clavicul\w*|cervical|jugular|neck",
    "abdominal": r"""abdom\w*|belly|hepat\w*|liver|splen\w*|renal|kidneys?|porta(?:l)?
        |retroperiton\w*|mesenter\w*|celiac|coeliac|paracaval|aortocaval|gastr\w*|pelvi\w*|iliac|inguin\w*""",
    "breast": r"breasts?|mammar\w*|chest\s+wall",
    "aorta": r"aort(?:a|ic)\b|arcus",
    "neck vessels": r"carotid\w*|subclavian|brachiocephalic|supra-?aortic",
    "ribs": r"\bribs?|costal",
    "spine": r"vertebra\w*|spin(?:e|al)|corpus",
    "sternum": r"stern(?:um|al)",
    "bones": r"bon(?:es?|y)\b|osseous",
}
_MEDIASTINAL = frozenset(
    {"paratracheal", "subcarinal", "aortopulmonary", "prevascular", "paraaortic"}
)
_PART = re.compile(
    "|".join(rf"(?P<{name.replace(' ', '_')}>\b(?:{pattern}))" for name, pattern in _PARTS.items()),
    re.IGNORECASE | re.VERBOSE,
)
_OF_SIDE = re.compile(
    rf"(?:\s+(?!and\b|or\b)\w+){{0,3}}?\s+(?:of|in|on)\s+(?:the\s+)?(?:{_SIDE.pattern})",
    re.IGNORECASE,
)
Sided = tuple[int, tuple[str, ...]]
"""Position of a word and the sides that it names."""
_BEFORE = re.compile(r"\b(?:right|left)(?:\s+lung)?\s+\Z", re.IGNORECASE)
_ALWAYS = {"middle lobe": "right", "lingula": "left"}
"""Parts that exist on one side only."""


class Place(NamedTuple):
    """A place in the chest; a side or part that is not named is empty."""

    side: str
    part: str


def sides_named(texts: Iterable[str]) -> frozenset[str]:
    """The sides, of ``right`` and ``left``, that any of the texts names."""
    return frozenset(side for text in texts for _, sides in _sides(text) for side in sides)


def places_named(text: str) -> frozenset[Place]:
    """Every part of the chest that ``text`` names, with its side, and sides without a part."""
    sides = list(_sides(text))
    found: set[Place] = set()
    used: set[int] = set()
    for match in _PART.finditer(text):
        part = (match.lastgroup or "").replace("_", " ")
        place, both = _side_of(part, match, text, sides)
        used.add(place)
        # The abdomen is too large to count as one place, so the organ is kept.
        part = match[0].lower() if part == "abdominal" else part
        found.update(Place(side, part) for side in both)
    free = [both for place, both in sides if place not in used]
    return frozenset(found | {Place(side, "") for both in free for side in both})


def in_abdomen(text: str) -> bool:
    """Whether ``text`` names places, all of them in the abdomen."""
    return {match.lastgroup for match in _PART.finditer(text)} == {"abdominal"}


def denial_covers(denied: Set[Place], stated: Set[Place]) -> bool:
    """Whether a denial at the places ``denied`` holds for one of the places ``stated``.

    A denial without a place holds everywhere; a statement without a place may be anywhere.
    """
    parts = {part for _, part in denied}
    whole = {Place("", part) for part in parts if {("right", part), ("left", part)} <= denied}
    everywhere = set(denied) | whole or {Place("", "")}
    return any(
        side in ("", place.side)
        and (part in ("", place.part) or (part == "mediastinal" and place.part in _MEDIASTINAL))
        for side, part in everywhere
        for place in stated or {Place("", "")}
    )


def _sides(text: str) -> Iterator[Sided]:
    for match in _SIDE.finditer(text):
        side = match.lastgroup or ""
        yield match.start(), ("right", "left") if side == "both" else (side,)


def _side_of(part: str, match: re.Match[str], text: str, sides: Sequence[Sided]) -> Sided:
    """The side of a part: the one after it, the last before it, or the only one in the text."""
    if part in _ALWAYS and not _BEFORE.search(text, 0, match.start()):
        own = (_ALWAYS[part],)
        return next((place for place, both in sides if both == own), -1), own
    if after := _OF_SIDE.match(text, match.end()):
        place, both = list(_sides(after[0]))[-1]
        return match.end() + place, both
    before_it = [each for each in sides if each[0] < match.start()]
    if before_it:
        return before_it[-1]
    return sides[0] if len(sides) == 1 else (-1, ("",))
