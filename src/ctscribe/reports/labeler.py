"""The 18 findings a report states, each with the words it rests on."""

from dataclasses import dataclass
from typing import final

from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.lexicon import CONCEPTS
from ctscribe.reports.polarity import Status, read_polarity
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
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
    concepts = [c for c in CONCEPTS if any(literal in lowered for literal in c.literals)]
    mentions = []
    for start, end in sentence_spans(text) if concepts else ():
        sentence = lowered[start:end]
        polarity = None
        for concept in concepts:
            if not any(literal in sentence for literal in concept.literals):
                continue
            for match in concept.pattern.finditer(sentence):
                if concept.unless and concept.unless.search(sentence):
                    break
                polarity = polarity or read_polarity(sentence)
                status = polarity.status(*match.span())
                span = (start + match.start(), start + match.end())
                mentions.append(Mention(concept.finding, status, text[start:end], span))
    return sorted(mentions, key=lambda mention: mention.span)


def label_report(text: str) -> Labels:
    """The 18 labels in `FINDINGS` order: 1 where at least one mention is affirmed, else 0."""
    present = {mention.finding for mention in find_mentions(text) if mention.status == "present"}
    return tuple(int(finding in present) for finding in FINDINGS)
