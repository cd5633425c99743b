"""Reference and prediction side by side: which findings are missing, which are wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.labeler import find_mentions, label_report
from ctscribe.reports.sections import sentence_spans
from ctscribe.types import Labels

NUM_WORST = 20
"""Studies a scoreboard shows."""


@final
@dataclass(frozen=True)
class Sentence:
    """A sentence, and the findings in it that the other side lacks."""

    text: str
    marked: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Comparison:
    """One study: ``missing`` findings are true but not predicted, ``wrong`` ones the reverse."""

    study: str
    reference: tuple[Sentence, ...]
    prediction: tuple[Sentence, ...]
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    f1: float


def compare_reports(
    study: str, *, reference: str, prediction: str, labels: Labels | None
) -> Comparison:
    """Marks in each text the sentences that state what the other does not.

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
    )


def find_worst(comparisons: Iterable[Comparison], number: int = NUM_WORST) -> list[Comparison]:
    """The studies with the lowest F1, of equals those with more errors, then by name."""
    return sorted(
        comparisons, key=lambda each: (each.f1, -len(each.missing + each.wrong), each.study)
    )[:number]


def _named(labels: Labels) -> set[str]:
    return {finding for finding, label in zip(FINDINGS, labels, strict=True) if label}


def _ordered(findings: set[str]) -> tuple[str, ...]:
    return tuple(finding for finding in FINDINGS if finding in findings)


def _marked(text: str, findings: set[str]) -> tuple[Sentence, ...]:
    mentions = [
        mention
        for mention in find_mentions(text)
        if mention.status == "present" and mention.finding in findings
    ]
    return tuple(
        Sentence(
            text[start:end],
            _ordered({each.finding for each in mentions if start <= each.span[0] < end}),
        )
        for start, end in sentence_spans(text)
    )
