"""The 18 findings a report states, each with the words it rests on."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import final

from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.lexicon import CONCEPTS
from ctscribe.reports.polarity import Polarity, Status, read_polarity
from ctscribe.reports.sections import sentence_spans
from ctscribe.types import Labels


@final
@dataclass(frozen=True)
class Mention:
    """A finding named in a report."""

    finding: str
    """One of `FINDINGS`."""
    status: Status
    sentence: str
    """The sentence that names it."""
    span: tuple[int, int]
    """Start and end of the words in the report."""


def find_mentions(text: str) -> list[Mention]:
    """Every mention of the 18 findings in ``text``, in order of place."""
    lowered = text.lower()
    if len(lowered) != len(text):
        # A few capitals grow when lowered; offsets must stay those of the text given.
        lowered = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
    spans = sentence_spans(text)
    starts = [start for start, _ in spans]
    polarities: dict[int, Polarity] = {}
    mentions = []
    for concept in CONCEPTS:
        for number in _sentences_with(concept.literals, lowered, starts):
            start, end = spans[number]
            sentence = lowered[start:end]
            matches = list(concept.pattern.finditer(sentence))
            if not matches or (concept.unless and concept.unless.search(sentence)):
                continue
            if number not in polarities:
                polarities[number] = read_polarity(sentence)
            for match in matches:
                status = polarities[number].status(*match.span())
                span = (start + match.start(), start + match.end())
                mentions.append(Mention(concept.finding, status, text[start:end], span))
    return sorted(mentions, key=lambda mention: mention.span)


def label_report(text: str) -> Labels:
    """The 18 labels in `FINDINGS` order: 1 where at least one mention is affirmed, else 0."""
    present = {mention.finding for mention in find_mentions(text) if mention.status == "present"}
    return tuple(int(finding in present) for finding in FINDINGS)


def _sentences_with(literals: tuple[str, ...], lowered: str, starts: list[int]) -> list[int]:
    """Numbers of the sentences that hold one of the strings."""
    numbers = set()
    for literal in literals:
        place = lowered.find(literal)
        while place >= 0:
            number = bisect_right(starts, place) - 1
            numbers.add(number)
            after = starts[number + 1] if number + 1 < len(starts) else len(lowered)
            place = lowered.find(literal, after)
    numbers.discard(-1)
    return sorted(numbers)
