"""Pairs as training items; one item is one study with its negative."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ctscribe.errors import CtscribeError
from ctscribe.pairs.marks import Marks, differing_findings, labels_of, mark_tokens
from ctscribe.reports.prompt import ChatTokenizer, GridThw, answer_offsets, encode_example
from ctscribe.reports.sections import join_report
from ctscribe.rows import PairRow, StudyRow
from ctscribe.types import Labels


@final
@dataclass(frozen=True)
class Visual:
    """What the model is shown of one volume: frames, or features computed from them."""

    grid_thw: GridThw
    position_mm: tuple[float, ...]
    """Mean superior coordinate of each slice pair."""
    frames: UInt8[Tensor, "slices height width 3"] | None = None
    visual_tokens: Float[Tensor, "tokens hidden"] | None = None


VisualSource = Callable[[StudyRow, int | None], Visual]
"""Gives a study's visual input, or, with a noise seed, noise of exactly its size."""


@final
@dataclass(frozen=True)
class Sample:
    """One report with one volume."""

    study: str
    input_ids: Int64[Tensor, " sequence"]
    labels: Int64[Tensor, " sequence"]
    visual: Visual
    findings: Labels | None = None
    """Of the report's study, where they are known."""


@final
@dataclass(frozen=True)
class Pair:
    """One report with its own volume and with the one shown instead."""

    positive: Sample
    negative: Sample | None
    marks: Marks
    """Of the report's tokens."""


def slice_pair_positions(position_mm: Sequence[float]) -> tuple[float, ...]:
    """Mean position of each pair of slices, for positions in frame order."""
    return tuple(
        (first + second) / 2
        for first, second in zip(position_mm[::2], position_mm[1::2], strict=True)
    )


@final
class PairDataset(Dataset[Pair]):
    """Whole pairs by number, so that no sampler and no process count can tear one apart.

    Args:
        studies: By name; must hold every volume that ``pairs`` names.
        pairs: As in ``pairs.jsonl``: a positive, then its negative or none.
        tokenizer: The model's.
        visual: Where visual inputs come from.
        max_tokens: Longest sample the model takes.

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
            for name in {row.study, row.volume} - {None}:
                if name not in studies:
                    raise CtscribeError(
                        "E_PAIRS",
                        f"pairs may only name prepared volumes, but {name} is not in "
                        "studies.jsonl; run pairs again",
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
        return Pair(
            self._sample(positive),
            None if negative is None else self._sample(negative),
            self._marks(positive, negative),
        )

    def _marks(self, positive: PairRow, negative: PairRow | None) -> Marks:
        """Without a negative nothing is disputed; against noise whatever states a finding is."""
        study = self._studies[positive.study]
        report = join_report(study.findings, study.impression)
        disputed: frozenset[str] | None = frozenset()
        if negative is not None:
            disputed = self._disputed(study, report, negative)
        return mark_tokens(report, answer_offsets(self._tokenizer, report), disputed)

    def _disputed(self, study: StudyRow, report: str, negative: PairRow) -> frozenset[str] | None:
        if negative.volume is None:
            return None
        shown = self._studies[negative.volume]
        told = join_report(shown.findings, shown.impression)
        return differing_findings(labels_of(study.labels, report), labels_of(shown.labels, told))

    def _sample(self, row: PairRow) -> Sample:
        study = self._studies[row.study]
        shown = study if row.volume is None else self._studies[row.volume]
        visual = self._visual(shown, row.noise_seed)
        report = join_report(study.findings, study.impression)
        input_ids, labels = encode_example(
            self._tokenizer, report, visual.grid_thw, study=row.study
        )
        if len(input_ids) > self._max_tokens:
            raise CtscribeError(
                "E_TOO_LONG",
                f"prompt, visual tokens and report must fit into {self._max_tokens} tokens, but "
                f"{row.study} needs {len(input_ids)}; use fewer slices or smaller frames",
            )
        ids, supervised = torch.tensor(input_ids), torch.tensor(labels)
        return Sample(row.study, ids, supervised, visual, study.labels)


def strategy_of(rows: Sequence[PairRow]) -> Literal["origin", "gauss", "heter"]:
    """What the negatives among ``rows`` are: none, noise, or other patients' volumes.

    Raises:
        CtscribeError: ``E_PAIRS`` when noise and volumes are mixed.
    """
    shown = {row.volume is None for row in rows if row.role == "negative"}
    if len(shown) == 2:
        raise CtscribeError(
            "E_PAIRS",
            "the negatives of one run must be of one kind, but noise and other patients' "
            "volumes are mixed; run pairs again",
        )
    if not shown:
        return "origin"
    return "gauss" if shown.pop() else "heter"


def pair_up(rows: Sequence[PairRow]) -> list[tuple[PairRow, PairRow | None]]:
    """Groups rows into (positive, negative), or (positive, None) where no row is a negative.

    Raises:
        CtscribeError: ``E_PAIRS`` naming the study whose rows are out of order.
    """
    if all(row.role == "positive" for row in rows):
        return [(row, None) for row in rows]
    pairs = list(zip(rows[::2], rows[1::2], strict=False))
    for positive, negative in pairs:
        whole = (positive.role, negative.role) == ("positive", "negative")
        if not whole or positive.study != negative.study:
            raise CtscribeError(
                "E_PAIRS",
                f"each positive must be followed by its own negative, but the rows of "
                f"{positive.study} are not; run pairs again",
            )
    if len(rows) % 2:
        raise CtscribeError(
            "E_PAIRS",
            f"each positive must be followed by its own negative, but {rows[-1].study} is the "
            "last row and alone; run pairs again",
        )
    return [(positive, negative) for positive, negative in pairs]
