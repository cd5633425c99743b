"""Which words of a report a volume decides: sentences on findings, token by token."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor

from ctscribe.reports.labeler import find_mentions
from ctscribe.reports.sections import sentence_spans

_HEADING = re.compile(r"(findings|impressions?)\s*:\s*", re.IGNORECASE)


@final
@dataclass(frozen=True)
class Marks:
    """What is known of each supervised token of one report, its end-of-turn token included."""

    finding: Bool[Tensor, "answer_tokens"]
    """In a sentence that states a finding; the rest is boilerplate."""
    disputed: Bool[Tensor, "answer_tokens"]
    """In a sentence that speaks of a finding in which the two volumes of the pair differ."""


def mark_tokens(
    report: str, offsets: Sequence[tuple[int, int]], disputed: Collection[str] | None
) -> Marks:
    """Marks the tokens of a report by the sentences they lie in.

    Args:
        report: As `reports.sections.join_report` writes it.
        offsets: First and last character of each token, half open, in reading order.
        disputed: Findings in which the volumes differ, present or absent in the report; None for
            noise, which shows no finding, so that every sentence stating one is disputed.
    """
    sentences = _sentences(report)
    finding = [(s.start, s.end) for s in sentences if s.stated]
    chosen = (
        finding
        if disputed is None
        else [(s.start, s.end) for s in sentences if not s.named.isdisjoint(disputed)]
    )
    return Marks(_inside(offsets, finding), _inside(offsets, chosen))


@final
@dataclass(frozen=True)
class _Sentence:
    start: int
    end: int
    stated: frozenset[str]
    named: frozenset[str]
    """Stated, denied or left open."""


@lru_cache(maxsize=1 << 14)
def _sentences(report: str) -> tuple[_Sentence, ...]:
    """Sentences that name a finding, without the heading before them."""
    mentions = find_mentions(report)
    found = []
    for start, end in sentence_spans(report):
        inside = [m for m in mentions if start <= m.span[0] < end]
        if not inside:
            continue
        heading = _HEADING.match(report, start, end)
        found.append(
            _Sentence(
                heading.end() if heading else start,
                end,
                frozenset(m.finding for m in inside if m.status == "present"),
                frozenset(m.finding for m in inside),
            )
        )
    return tuple(found)


def _inside(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> Bool[Tensor, "answer_tokens"]:
    """Tokens that share a character with a span; the end-of-turn token behind them never does."""
    shared = [any(a < end and start < b for start, end in spans) for a, b in offsets]
    return torch.tensor([*shared, False])
