"""The training data set: one item is a study's report with its own volume and a wrong one."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import PairRow, StudyRow
from ctscribe.base.types import Labels, Strategy
from ctscribe.text.labeler import find_mentions
from ctscribe.text.prompt import (
    ChatTokenizer,
    GridThw,
    answer_offsets,
    encode_example,
    num_visual_tokens,
)
from ctscribe.text.sections import join_report, sentence_spans

_TEXTS, _SCANS = 1000, 64
"""Reports and scans that `PairDataset.longest` looks at; a scan's whole file is read."""
_HEADING = re.compile(r"(findings|impressions?)\s*:\s*", re.IGNORECASE)


@final
@dataclass(frozen=True)
class Visual:
    """The visual input of one volume: frames, or features computed from them."""

    grid_thw: GridThw
    position_mm: tuple[float, ...]
    """Mean superior coordinate of each slice pair."""
    frames: UInt8[Tensor, "slices height width 3"] | None = None
    visual_tokens: Float[Tensor, "tokens hidden"] | None = None
    patient_id: str | None = None
    """Whose volume it is; None for noise and for a scan of no data set."""
    cue: tuple[str, ...] | None = None
    """Findings that the prompt states; see `prompt_messages`."""
    markers: tuple[str, ...] | None = None
    """Texts before the slice pairs, in families that have them; see `encode_prompt`."""
    grid_to_ras: tuple[tuple[float, ...], ...] | None = None
    """4 × 4, (plane, row, column, 1) of a visual token → RAS+ mm; only for another encoder's grid,
    whose planes take the place of slice pairs, and only where it is known."""


_SMALLEST = Visual((1, 2, 2), (0.0,))
VisualSource = Callable[[StudyRow, int | None], Visual]
"""(study, noise seed) → its visual input or, with a seed, noise of the same size."""


@final
@dataclass(frozen=True)
class Sample:
    """One report with one volume."""

    study: str
    input_ids: Int64[Tensor, " sequence"]
    labels: Int64[Tensor, " sequence"]
    visual: Visual
    findings: Labels | None = None
    """Labels of the report's study; None where they are unknown."""


@final
@dataclass(frozen=True)
class Marks:
    """Flags of each supervised token of one report, end token included."""

    finding: Bool[Tensor, "answer_tokens"]
    """Whether its sentence states a finding; the others are boilerplate."""
    disputed: Bool[Tensor, "answer_tokens"]
    """Whether its sentence names a finding in which the two volumes of the pair differ."""


@final
@dataclass(frozen=True)
class Pair:
    """One report with its own volume, and with another one in its place."""

    positive: Sample
    negative: Sample | None
    marks: Marks
    """Flags of the report's tokens, the same in both samples."""
    shown: str | None = None
    """Name of the volume that the negative shows; None for noise or without a negative."""


def slice_pair_positions(position_mm: Sequence[float]) -> tuple[float, ...]:
    """Mean position of each pair of slices, for positions in frame order."""
    return tuple(
        (first + second) / 2
        for first, second in zip(position_mm[::2], position_mm[1::2], strict=True)
    )


@final
class PairDataset(Dataset[Pair]):
    """A map-style data set of whole pairs, so that no sampler can separate the two samples of one.

    Args:
        studies: By volume name; must hold every volume that ``pairs`` names.
        pairs: Rows of ``pairs.jsonl``.
        tokenizer: The model's.
        visual: Gives the visual inputs.
        max_tokens: Longest sample allowed.

    Raises:
        CtscribeError: ``E_PAIRS`` when the rows are not pairs or name an unknown volume; on
            access ``E_TOO_LONG`` or ``E_REPORT``, naming the study.
    """

    def __init__(
        self,
        studies: Mapping[str, StudyRow],
        pairs: Sequence[PairRow],
        tokenizer: ChatTokenizer,
        visual: VisualSource,
        max_tokens: int,
    ) -> None:
        for row in pairs:
            for name in {row.study, row.volume, *(row.alternatives or ())} - {None}:
                if name not in studies:
                    raise CtscribeError(
                        "E_PAIRS",
                        f"pairs may only name prepared volumes, but {name} is none",
                    )
        self._studies = studies
        self._pairs = pair_up(pairs)
        self._tokenizer = tokenizer
        self._visual = visual
        self._max_tokens = max_tokens

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> Pair:
        positive, negative = self._pairs[number]
        sample, marks = self._sample(positive), self._marks(positive, negative)
        if negative is None:
            return Pair(sample, None, marks)
        return Pair(sample, self._sample(negative), marks, shown=negative.volume)

    def require_reports(self) -> None:
        """Encodes every report once, so that a bad one is found before training and not in it.

        Raises:
            CtscribeError: ``E_REPORT``, naming the study, and ``E_TOO_LONG`` for a report that
                would not fit even with the smallest scan.
        """
        for positive, _ in self._pairs:
            self._num_tokens(positive, _SMALLEST)

    def longest(self, text: int = 0) -> int:
        """Estimated tokens of the longest sample: the largest scan with the longest report.

        Looks at `_SCANS` scans and `_TEXTS` reports. ``text`` is a lower bound for the tokens of
        prompt and report.
        """
        texts = [self._num_tokens(each, _SMALLEST) for each in self._some(_TEXTS)]
        return max(self._shown_tokens(each) for each in self._some(_SCANS)) + max(text, *texts)

    def _some(self, number: int) -> list[PairRow]:
        """At most ``number`` positives, evenly spaced."""
        return [positive for positive, _ in self._pairs[:: -(-len(self) // number)]]

    def _shown_tokens(self, positive: PairRow) -> int:
        """Tokens of a scan: its visual tokens, and the texts between its slice pairs."""
        visual = self._visual(self._studies[positive.study], None)
        bare = self._num_tokens(positive, _SMALLEST) - num_visual_tokens(_SMALLEST.grid_thw)
        return self._num_tokens(positive, visual) - bare

    def _num_tokens(self, positive: PairRow, visual: Visual) -> int:
        return len(self._encode(self._studies[positive.study], visual)[0])

    def rows(self) -> list[PairRow]:
        """The rows of ``pairs.jsonl`` it was made of."""
        return [row for pair in self._pairs for row in pair if row is not None]

    def couples(self) -> list[tuple[int, int]]:
        """Numbers of each two pairs whose negatives show each other's volume."""
        numbers = {positive.study: number for number, (positive, _) in enumerate(self._pairs)}
        partners = [
            numbers.get((negative and negative.volume) or "") for _, negative in self._pairs
        ]
        return [
            (number, other)
            for number, other in enumerate(partners)
            if other is not None and number < other and partners[other] == number
        ]

    def labels(self) -> dict[str, Labels]:
        """Labels by volume name, of the studies that have any."""
        return {name: study.labels for name, study in self._studies.items() if study.labels}

    def with_rows(self, rows: Sequence[PairRow]) -> "PairDataset":
        """The same data set with other rows."""
        return PairDataset(self._studies, rows, self._tokenizer, self._visual, self._max_tokens)

    def _marks(self, positive: PairRow, negative: PairRow | None) -> Marks:
        """Without a negative no token is disputed; against noise all that state a finding are."""
        study = self._studies[positive.study]
        report = join_report(study.findings, study.impression)
        disputed = () if negative is None else negative.disputed
        return mark_tokens(report, answer_offsets(self._tokenizer, report), disputed)

    def _sample(self, row: PairRow) -> Sample:
        study = self._studies[row.study]
        shown = self._studies[row.volume or row.study]  # noise has the size of the study's own
        visual = self._visual(shown, row.noise_seed)
        input_ids, labels = self._encode(study, visual)
        ids, supervised = torch.tensor(input_ids), torch.tensor(labels)
        return Sample(row.study, ids, supervised, visual, study.labels)

    def _encode(self, study: StudyRow, visual: Visual) -> tuple[list[int], list[int]]:
        name, report = study.volume_name, join_report(study.findings, study.impression)
        input_ids, labels = encode_example(
            self._tokenizer,
            report,
            visual.grid_thw,
            visual.cue,
            markers=visual.markers,
            study=name,
        )
        if len(input_ids) > self._max_tokens:
            raise CtscribeError(
                "E_TOO_LONG",
                f"prompt, visual tokens and report must fit into {self._max_tokens} tokens, but "
                f"{name} needs {len(input_ids)}",
            )
        return input_ids, labels


def strategy_of(rows: Sequence[PairRow]) -> Strategy:
    """The strategy that the negatives among ``rows`` were made by.

    Raises:
        CtscribeError: ``E_PAIRS`` when noise and volumes are mixed.
    """
    negatives = [row for row in rows if row.role == "negative"]
    shown = {row.volume is None for row in negatives}
    if len(shown) == 2:
        raise CtscribeError(
            "E_PAIRS",
            "the negatives of one run must be of one kind, but noise and other patients' "
            "volumes are mixed",
        )
    if not shown:
        return "origin"
    if shown.pop():
        return "gauss"
    return "hard" if any(row.alternatives is not None for row in negatives) else "heter"


def pair_up(rows: Sequence[PairRow]) -> list[tuple[PairRow, PairRow | None]]:
    """Groups rows into (positive, negative), or (positive, None) where there are no negatives.

    Raises:
        CtscribeError: ``E_PAIRS`` naming the study whose rows are out of order.
    """
    pairs: list[tuple[PairRow, PairRow | None]] = []
    for row in rows:
        if row.role == "positive":
            pairs.append((row, None))
        elif pairs and pairs[-1][1] is None and pairs[-1][0].study == row.study:
            pairs[-1] = (pairs[-1][0], row)
        else:
            raise _torn(row.study)
    alone = [positive.study for positive, negative in pairs if negative is None]
    if alone and len(alone) < len(pairs):
        raise _torn(alone[0])
    return pairs


def _torn(study: str) -> CtscribeError:
    return CtscribeError(
        "E_PAIRS",
        f"each positive must be followed by its own negative, but the rows of {study} are not",
    )


def mark_tokens(
    report: str, offsets: Sequence[tuple[int, int]], disputed: Collection[str] | None
) -> Marks:
    """Flags the tokens of a report by the sentences they are in.

    Args:
        report: As `sections.join_report` writes it.
        offsets: (first character, character after the last) of each token.
        disputed: Findings in which the two volumes differ. None for noise: it shows no finding, so
            every sentence that states one is disputed.
    """
    sentences = _sentences(report)
    stating = disputing = [each.span for each in sentences if each.stated]
    if disputed is not None:
        disputing = [each.span for each in sentences if not each.named.isdisjoint(disputed)]
    return Marks(_inside(offsets, stating), _inside(offsets, disputing))


class _Sentence(NamedTuple):
    span: tuple[int, int]
    stated: bool
    """Whether it states any finding."""
    named: frozenset[str]
    """All findings it names: stated, denied or uncertain."""


@lru_cache(maxsize=1 << 14)
def _sentences(report: str) -> tuple[_Sentence, ...]:
    """The sentences of a report that name a finding; spans leave out a heading before them."""
    mentions = find_mentions(report)
    found = []
    for start, end in sentence_spans(report):
        inside = [m for m in mentions if start <= m.span[0] < end]
        if not inside:
            continue
        heading = _HEADING.match(report, start, end)
        span = (heading.end() if heading else start, end)
        stated = any(mention.status == "present" for mention in inside)
        found.append(_Sentence(span, stated, frozenset(mention.finding for mention in inside)))
    return tuple(found)


def _inside(
    offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> Bool[Tensor, "answer_tokens"]:
    """Flags tokens that overlap a span; the end token, appended here, never does."""
    shared = [any(a < end and start < b for start, end in spans) for a, b in offsets]
    return torch.tensor([*shared, False])
