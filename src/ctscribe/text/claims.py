"""The claims of a report: each finding it states or denies, where, how large, in which words.

In: the two sections. Out: `Claim`s in the order of the text. Stock sentences that call the heart,
the lungs or the whole chest normal count as denials.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import Mention, find_mentions
from ctscribe.text.lexicon import EIGHTEEN, Lexicon
from ctscribe.text.polarity import Status
from ctscribe.text.sections import sentence_spans
from ctscribe.text.sides import Place, in_abdomen, places_named
from ctscribe.text.sizes import find_sizes

Section = Literal["findings", "impression"]
PlacedMention = tuple[Mention, int, int]
"""A mention with its start and end within its sentence."""

_CHEST = r"(?:thora(?:x|cic)|chest|lung\s+ct|ct\s+(?:examination|scan))"
_PATHOLOGY = r"(?:pathology|abnormality|abnormal\s+finding|pathological\s+finding)"
_NORMAL: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (
        re.compile(
            r"(?=.*\b(?:size|contour|dimension|configuration)s?\b)"
            r"[^.;]*?\bheart\b[^.;:]{0,60}?\b(?:is|are|was|were|of|,)\s+(?:normal|natural|ordinary)\b"
            r"|[^.;]*?\b(?:normal|natural)\s+heart\s+size",
        ),
        ("Cardiomegaly",),
    ),
    (
        re.compile(r"\W*(?:the\s+)?(?:both\s+)?lungs\s+(?:are|appear)\s+(?:clear|normal)\b"),
        ("Consolidation", "Lung opacity", "Lung nodule", "Atelectasis"),
    ),
)
"""Sentences that deny findings without naming them, and these findings."""
_ALL_NORMAL = re.compile(
    rf"\W*normal\W*\Z|\W*(?:normal\s+(?:findings\s+(?:in|on)\s+(?:the\s+)?)?{_CHEST}"
    rf"|[^.;,]*\b{_CHEST}\b[^.;,]*\b(?:within\s+(?:the\s+)?normal\s+limits|(?:is|are)\s+normal)"
    r"(?!\s+(?:except|apart|aside|other|but|in\b))"
    rf"|no\s+{_PATHOLOGY}\s+(?:is|was)\s+(?:seen|detected|observed|found)"
    rf"(?:\s+(?:in|on)\s+(?:the\s+)?{_CHEST}(?:\s+ct)?(?:\s+examination)?)?\W*\Z"
    rf"|[^.;,]*\b{_CHEST}[^.;,]*\bno\s+{_PATHOLOGY}\b)",
)
_DENIED_BY_NORMAL = frozenset(FINDINGS) - {"Medical material"}
"""The findings that a normal chest lacks; one with a catheter may still be called normal."""
_JOINT = re.compile(r"[,;:]\s|\b(?:but|while|whereas|however|although|though|and|except)\b")
_KINDS = {
    "Emphysema": r"bull|bleb",
    "Lung opacity": r"glass|ggo|icy|crazy|linear|densit",
    "Pleural effusion": r"empyema|pyothorax|h[ae]+mothorax|h[ae]+mopneumo",
    "Medical material": r"cat[eh]*ter|tube|pace|drain|stent|port|wire|sutur|clip|valve|prosthe",
}
"""Finding → pattern of its kinds, of which one may be present and another absent."""


@final
@dataclass(frozen=True)
class Claim:
    """A finding that a report states, denies or doubts."""

    finding: str
    status: Status
    section: Section
    sentence: str
    words: str
    """The clause around the mention, in lower case."""
    kind: str = ""
    """The kind that is named, for a finding with several kinds."""
    places: frozenset[Place] = frozenset()
    """The places that are named for it."""
    sizes_mm: tuple[float, ...] = ()

    @property
    def present(self) -> bool:
        """Whether it is stated without doubt."""
        return self.status == "present"

    @property
    def sides(self) -> frozenset[str]:
        """The sides among its places."""
        return frozenset(side for side, _ in self.places if side)


def read_claims(findings: str, impression: str, lexicon: Lexicon = EIGHTEEN) -> list[Claim]:
    """All claims of both sections, in the order of the text."""
    sections: tuple[tuple[Section, str], ...] = ("findings", findings), ("impression", impression)
    return [claim for section, text in sections for claim in _read(section, text, lexicon)]


def _read(section: Section, text: str, lexicon: Lexicon) -> Iterator[Claim]:
    mentions = find_mentions(text, lexicon)
    before = ""
    for start, end in sentence_spans(text):
        sentence = text[start:end]
        inside = [
            (each, each.span[0] - start, each.span[1] - start)
            for each in mentions
            if start <= each.span[0] < end
        ]
        for mention, first, last in inside:
            yield _claim(section, mention, (first, last), inside, before)
        if lexicon is EIGHTEEN:
            named = {mention.finding for mention, _, _ in inside}
            for finding in _denied_as_normal(sentence.lower(), section) - named:
                yield Claim(finding, "absent", section, sentence, "normal")
        before = sentence


def _claim(
    section: Section,
    mention: Mention,
    span: tuple[int, int],
    inside: Sequence[PlacedMention],
    before: str,
) -> Claim:
    """The claim of a mention at ``span`` in its sentence.

    ``inside`` are all mentions of the sentence, ``before`` is the sentence before it.
    """
    others = [each for each in inside if each[0].finding != mention.finding]
    unlike = [each for each in inside if each[0].status != mention.status]
    own = _clause(mention.sentence, span, [*others, *unlike])
    # A clause without a place shares that of other findings with the same status.
    words = own if places_named(own) else _clause(mention.sentence, span, unlike)
    places = places_named(words)
    if not places and mention.finding == "Lymphadenopathy" and in_abdomen(before):
        # Lymph nodes after a sentence about the abdomen are in the abdomen.
        places = places_named(before)
    name = mention.sentence[slice(*span)].lower()
    kinds = _KINDS.get(mention.finding)
    kind = re.search(kinds, name) if kinds else None
    sizes = find_sizes(own) if mention.status == "present" else ()
    return Claim(
        mention.finding,
        mention.status,
        section,
        mention.sentence,
        words.lower(),
        kind[0] if kind else "",
        places,
        tuple(size for size, _ in sizes),
    )


def _denied_as_normal(lowered: str, section: Section) -> frozenset[str]:
    if section == "impression" and _ALL_NORMAL.match(lowered):
        return _DENIED_BY_NORMAL
    return frozenset(name for pattern, names in _NORMAL if pattern.match(lowered) for name in names)


def _clause(sentence: str, span: tuple[int, int], others: Sequence[PlacedMention]) -> str:
    """The part of a sentence around ``span`` that is not about ``others``."""
    cuts = [m.start() for m in _JOINT.finditer(sentence) if not span[0] < m.start() < span[1]]
    before = max((last for _, _, last in others if last <= span[0]), default=0)
    after = min((first for _, first, _ in others if first >= span[1]), default=len(sentence))
    low = max((c for c in cuts if 0 < before <= c <= span[0]), default=before)
    high = max((c for c in cuts if span[1] <= c <= after < len(sentence)), default=after)
    return sentence[low:high]
