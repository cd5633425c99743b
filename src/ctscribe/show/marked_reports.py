"""Compares a written report with its reference and marks the sentences that differ in a finding.

In: two texts, and labels where there are any. Out: a `Comparison`; of many, the worst ones.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

from ctscribe.base.types import Labels
from ctscribe.measure.beyond_labels import placed_findings
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions, label_report
from ctscribe.text.sections import sentence_spans


@final
@dataclass(frozen=True)
class MarkedSentence:
    """A sentence, and the findings in it that the other side lacks."""

    text: str
    marked: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Comparison:
    """One study: ``missing`` findings are true but not predicted, ``wrong`` ones the reverse."""

    study: str
    reference: tuple[MarkedSentence, ...]
    prediction: tuple[MarkedSentence, ...]
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    f1: float
    misplaced: tuple[str, ...] = ()
    """Findings that both state, but with different side or size, in words."""


def compare_reports(
    study: str, *, reference: str, prediction: str, labels: Labels | None
) -> Comparison:
    """Marks in each text the sentences that state a finding which the other text does not.

    Args:
        study: Name to show.
        reference: Both sections of the true report, one after the other.
        prediction: The same of the written one.
        labels: True findings; None reads them from ``reference``. A finding that is true by
            ``labels`` but not read in the text is listed as missing with no sentence marked.

    Returns:
        ``f1`` is 2TP/(2TP+FP+FN) over the 18 findings, and 1 where neither states any.
    """
    true = _named(label_report(reference) if labels is None else labels)
    stated = _named(label_report(prediction))
    errors = len(true ^ stated)
    return Comparison(
        study,
        _marked(reference, true - stated),
        _marked(prediction, stated - true),
        _ordered(true - stated),
        _ordered(stated - true),
        2 * len(true & stated) / (2 * len(true & stated) + errors) if true | stated else 1.0,
        tuple(_misplaced(reference, prediction)),
    )


def _misplaced(reference: str, prediction: str) -> Iterator[str]:
    for each in placed_findings(prediction=prediction, reference=reference):
        if each.wrong_side:
            said, true = (" and ".join(sorted(x.sides)) for x in (each.stated, each.true))
            yield f"side of {each.finding}: {said}, not {true}"
        if each.wrong_size:
            yield f"size of {each.finding}: {each.stated.size_mm:g}, not {each.true.size_mm:g} mm"


def find_worst(comparisons: Iterable[Comparison], number: int) -> list[Comparison]:
    """The studies with the lowest F1, of equals those with more errors, then by name."""
    return sorted(
        comparisons, key=lambda each: (each.f1, -len(each.missing + each.wrong), each.study)
    )[:number]


def _named(labels: Labels) -> set[str]:
    return {finding for finding, label in zip(FINDINGS, labels, strict=True) if label}


def _ordered(findings: set[str]) -> tuple[str, ...]:
    return tuple(finding for finding in FINDINGS if finding in findings)


def _marked(text: str, findings: set[str]) -> tuple[MarkedSentence, ...]:
    mentions = [
        mention
        for mention in find_mentions(text)
        if mention.status == "present" and mention.finding in findings
    ]
    return tuple(
        MarkedSentence(
            text[start:end],
            _ordered({each.finding for each in mentions if start <= each.span[0] < end}),
        )
        for start, end in sentence_spans(text)
    )
