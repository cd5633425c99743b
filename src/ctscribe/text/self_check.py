"""Checks a written report for contradictions, repeats, empty sections and an incomplete end.

In: its two sections. Out: `Remark`s in the order of their kinds. The text is not changed, and not
compared with the images (see `write.draft_check` for that).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, final

from ctscribe.text.claims import Claim, read_claims
from ctscribe.text.other_findings import OTHERS, find_other_findings
from ctscribe.text.sections import CONTINUES, split_sentences
from ctscribe.text.sides import denial_covers, places_named
from ctscribe.text.sizes import same_size

Kind = Literal[
    "contradiction",
    "impression",
    "side",
    "repeated",
    "empty",
    "cut",
    "images",
    "doubted",
    "outside",
]
KINDS: dict[Kind, str] = {
    "contradiction": "Stated and denied",
    "impression": "Findings and impression disagree",
    "side": "Sides",
    "repeated": "Repeated",
    "empty": "Empty",
    "cut": "Cut off",
    "images": "Text and images disagree",
    "doubted": "Text and images lean apart",
    "outside": "Outside the 18 findings",
}
"""Kind → its heading, in the order shown."""
NOTES: frozenset[Kind] = frozenset({"doubted", "outside"})
"""Kinds that are not faults: radiologists' reports have them too."""

_LIMITED = re.compile(
    r"\b(?:(?P<other>other(?!\s+(?:side|hand)\b)|another|additional|new(?:ly)?|further|second"
    r"|apart\s+from|except\w*|else|besides|aside|previous\w*|increas\w*|progress\w*|chang\w*"
    r"|active|acute|specific|fresh)"
    r"|(?P<kind>suspicio\w*|malignan\w*|metasta\w*|solid|calcifi\w*|cavit\w*|spicul\w*|enhanc\w*"
    r"|locul\w*|cystic|focal|diffuse|infiltrative|mass|pneumoni\w*|tumou?r\w*)"
    r"|(?P<large>enlarged|patholog\w*|significant\w*|obvious|marked|evident|large\b|big\b|abnormal"
    r"|adenopath\w*|lymphadenopath\w*|laps?\b))"
)
_GONE = re.compile(r"\b(?:regress|resol|disappear|cleared|removed)\w*", re.IGNORECASE)
"""Words that deny a thing which was there before, and may still be there in part."""
_NOT_LARGE = re.compile(
    r"\b(?:not?|non|without|below|under|less|fewer|smaller)\b[^.;]{0,40}?"
    r"\b(?:patholog|enlarged|reach|significant|\d)"
    r"|\bnon-?patholog|\bsubcent|\bminimal|\bmild|\bslight|\bsmall|\bmillimetr|\btiny|\bfew\b"
)
_LARGE_MM = 10.0
"""Larger sizes contradict the denial of large or pathological things."""
_COMMON_MM, _COMMON_IN_A_PART_MM = 10.0, 6.0
"""Smaller sizes are equal on both sides by chance, the second within the same part of them."""
_SIDE_WORD = re.compile(r"\b(?:right|left)\b")
_LOOP = re.compile(r"\b(\w[^.;]{0,80}?)(?:\W+\1\b){2,}", re.IGNORECASE)
_FEW_WORDS = 5
_BACK = re.compile(r"(?:no|not|it|they|this|these|is|are|has|have|new|there\s+(?:is|are)\s+no)\b")
_ORGAN = re.compile(r"o?esophag|trachea|bronch|heart|lung|pleura|vessel|gland|pancrea|thyroid")
_WORD = re.compile(r"[^\W_]+")
_CUT_END = re.compile(
    r"(?:[,(\-–:]|\b(?:measuring|reaching|approximately|about|than|is|are|was|were)"
    r"|\b(?:of|measuring|reaching|than|x)\s+\d{1,3}[.,]?)\s*\Z"
)


@final
@dataclass(frozen=True)
class Remark:
    """A sentence about something in a draft that its reader should check."""

    kind: Kind
    message: str
    finding: str | None = None
    sentences: tuple[str, ...] = ()
    """The draft's sentences that it is about, verbatim."""

    @property
    def is_note(self) -> bool:
        """Whether its kind is among `NOTES`, which are not faults."""
        return self.kind in NOTES


def check_text(findings: str, impression: str, *, finished: bool = True) -> list[Remark]:
    """Checks the two sections of a report; returns each remark once, in the order of `KINDS`.

    Args:
        findings: The section as written.
        impression: The section as written.
        finished: False if the report ran into the length limit.
    """
    claims = read_claims(findings, impression)
    others = read_claims(findings, impression, OTHERS)
    found = [
        *_contradictions([*claims, *others]),
        *_unfounded(claims),
        *_sides([*claims, *others]),
        *_repeats(findings, impression, claims),
        *_gaps(findings, impression, claims),
        *_incomplete(findings, impression, finished),
        *_outside(findings, impression, others),
    ]
    return in_order(found)


def in_order(remarks: Iterable[Remark]) -> list[Remark]:
    """Removes repeated remarks and sorts the others by `KINDS`."""
    return sorted(dict.fromkeys(remarks), key=lambda remark: list(KINDS).index(remark.kind))


def _contradictions(claims: Sequence[Claim]) -> Iterator[Remark]:
    """Findings that are stated and denied at one place, within a section or across the two."""
    seen: set[tuple[str, str]] = set()
    for stated in (claim for claim in claims if claim.present):
        for denied in claims:
            pair = stated.finding, denied.section + stated.section
            if pair in seen or not _contradict(stated, denied):
                continue
            seen.add(pair)
            across = stated.section != denied.section
            one, other = ("", "")
            if across:
                one, other = f" in the {stated.section}", f" in the {denied.section}"
            yield Remark(
                "impression" if across else "contradiction",
                f"{stated.finding} is stated{one} and denied{other}.",
                stated.finding,
                _once(stated.sentence, denied.sentence),
            )


def _contradict(stated: Claim, denied: Claim) -> bool:
    if denied.status != "absent" or (denied.finding, denied.kind) not in (
        (stated.finding, stated.kind),
        (stated.finding, ""),
    ):
        return False
    if _GONE.search(denied.sentence):
        return False
    return denial_covers(denied.places, stated.places) and _unlimited(stated, denied)


def _unlimited(stated: Claim, denied: Claim) -> bool:
    """Whether a denial applies to what is stated: it has no restriction, or one that fits it."""
    limits = {match.lastgroup for match in _LIMITED.finditer(denied.words)}
    if not limits or limits != {"large"} or _NOT_LARGE.search(stated.words):
        return not limits
    if stated.sizes_mm:
        return max(stated.sizes_mm) > _LARGE_MM
    return any(match.lastgroup == "large" for match in _LIMITED.finditer(stated.words))


def _unfounded(claims: Sequence[Claim]) -> Iterator[Remark]:
    """Findings in the impression that the findings section omits or gives another size."""
    named = {claim.finding for claim in claims if claim.section == "findings"}
    measured: dict[str, list[float]] = {}
    for claim in claims:
        if claim.section == "findings" and claim.present:
            measured.setdefault(claim.finding, []).extend(claim.sizes_mm)
    for claim in claims:
        if claim.section == "findings" or not claim.present or not named:
            continue
        if claim.finding not in named:
            message = f"The impression states {claim.finding}, of which the findings say nothing."
            yield Remark("impression", message, claim.finding, (claim.sentence,))
        sizes = measured.get(claim.finding, [])
        for size_mm in claim.sizes_mm if sizes else ():
            if not any(same_size(size_mm, true) for true in sizes):
                listed = ", ".join(f"{each:g}" for each in sizes)
                message = (
                    f"{claim.finding} is {size_mm:g} mm in the impression, but {listed} mm in the "
                    "findings."
                )
                yield Remark("impression", message, claim.finding, (claim.sentence,))


def _sides(claims: Sequence[Claim]) -> Iterator[Remark]:
    """Findings on another side in the impression, or twice with one size on both sides."""
    present = [claim for claim in claims if claim.present]
    for finding in dict.fromkeys(claim.finding for claim in present):
        own = [claim for claim in present if claim.finding == finding]
        before = [claim for claim in own if claim.section == "findings"]
        after = [claim for claim in own if claim.section == "impression"]
        here, there = _all_sides(before), _all_sides(after)
        if all(claim.sides for claim in before) and here and not there <= here:
            yield Remark(
                "side",
                f"{finding} is {_said(here)} in the findings and {_said(there)} in the impression.",
                finding,
                _once(*(claim.sentence for claim in own if claim.sides)),
            )
        yield from _twins(finding, before)
        yield from _twins(finding, after)


def _twins(finding: str, claims: Iterable[Claim]) -> Iterator[Remark]:
    """Two sentences that state a finding on the right and on the left with the same size."""
    for one, other in combinations(claims, 2):
        if one.sentence == other.sentence or one.sides | other.sides != {"right", "left"}:
            continue
        if len(one.sides) != 1 or len(other.sides) != 1:
            continue
        parts = {part for _, part in one.places} & {part for _, part in other.places} - {""}
        alike = _SIDE_WORD.sub("", one.words) == _SIDE_WORD.sub("", other.words)
        least_mm = 0.0 if alike else _COMMON_IN_A_PART_MM if parts else _COMMON_MM
        for size_mm in sorted(set(one.sizes_mm) & set(other.sizes_mm)):
            if size_mm >= least_mm:
                message = f"{finding} of {size_mm:g} mm is stated on the right and on the left."
                yield Remark("side", message, finding, (one.sentence, other.sentence))


def _all_sides(claims: Iterable[Claim]) -> frozenset[str]:
    return frozenset(side for claim in claims for side in claim.sides)


def _said(sides: frozenset[str]) -> str:
    return "on both sides" if len(sides) == 2 else f"on the {next(iter(sides))}"


def _repeats(findings: str, impression: str, claims: Iterable[Claim]) -> Iterator[Remark]:
    telling = {claim.sentence for claim in claims}
    for section in (findings, impression):
        seen: set[str] = set()
        last = ""
        for sentence in split_sentences(section):
            key = " ".join(_WORD.findall(sentence.lower()))
            again = sentence in telling or not _points_back(key)
            if key == last or (key in seen and again):
                yield Remark("repeated", "A sentence stands twice.", None, (sentence,))
            if loop := _LOOP.search(sentence):
                yield Remark("repeated", f"“{loop[1]}” is said again and again.", None, (sentence,))
            seen.add(key)
            last = key


def _points_back(words: str) -> bool:
    """Whether a repeated sentence may refer to another thing each time: "no mass is seen"."""
    if places_named(words) or _ORGAN.search(words):
        return False
    return words.count(" ") < _FEW_WORDS - 1 or _BACK.match(words) is not None


def _gaps(findings: str, impression: str, claims: Sequence[Claim]) -> Iterator[Remark]:
    for name, section in (("findings", findings), ("impression", impression)):
        if not split_sentences(section):
            yield Remark(
                "empty", f"The {name} are empty." if name[-1] == "s" else f"The {name} is empty."
            )
    if not claims and split_sentences(findings + "\n" + impression):
        yield Remark("empty", "The text says nothing of any of the 18 findings.")


def _incomplete(findings: str, impression: str, finished: bool) -> Iterator[Remark]:
    """Sections that end within a sentence."""
    last = (impression or findings).rstrip()
    for section in (findings.rstrip(), impression.rstrip()):
        ended_early = section == last and not finished
        words = section.split()
        if words and (ended_early or words[-1].lower() in CONTINUES or _CUT_END.search(section)):
            end = " ".join(words[-4:])
            yield Remark(
                "cut",
                f"The text breaks off after “{end}”.",
                None,
                tuple(split_sentences(section)[-1:]),
            )


def _outside(findings: str, impression: str, claims: Sequence[Claim]) -> Iterator[Remark]:
    for finding, status in find_other_findings(f"{findings}\n{impression}").items():
        if status == "present":
            sentences = (c.sentence for c in claims if c.finding == finding and c.present)
            message = f"{finding} is stated; only the text speaks of it, no probability does."
            yield Remark("outside", message, finding, _once(*sentences))


def _once(*sentences: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentences))
