"""Collates pairs into the batches of a training step."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ctscribe.learn.pairs.dataset import Pair, Sample
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import IGNORED, GridThw


class Batch(TypedDict):
    """Samples padded on the right, under Hugging Face's names."""

    input_ids: Int64[Tensor, "batch sequence"]
    attention_mask: Int64[Tensor, "batch sequence"]
    """1 on tokens, 0 on padding."""
    labels: Int64[Tensor, "batch sequence"]
    """−100 except on the answer and its end token."""
    video_grid_thw: Int64[Tensor, "batch 3"]
    """Slice pairs, rows of patches, columns of patches."""
    position_mm: Float[Tensor, "batch slice_pairs"]
    """Mean superior coordinate of each slice pair, padded with 0."""
    frames: NotRequired[list[Tensor]]
    """uint8 [slices, height, width, 3] of each sample; absent where there are features."""
    visual_tokens: NotRequired[Float[Tensor, "all_tokens hidden"]]
    """Stored features of all samples, concatenated; absent where there are frames."""
    prompt_rows: NotRequired[list[int | None]]
    """For negatives that share prompts: the row of the positive with the same volume and prompt,
    whose frames or features are not repeated here; None where there is no such positive."""


class PairBatch(TypedDict):
    """Whole pairs: row i of both branches is the same study's report."""

    studies: list[str]
    """Volume names, for errors."""
    finding_labels: Float[Tensor, "studies 18"]
    """1 present, 0 absent, NaN where a study has no labels."""
    positive: Batch
    negative: Batch | None
    """None when there are no negatives (origin)."""
    shown: list[str | None]
    """Volumes that the negatives show; None for noise and when there are no negatives."""
    finding: Bool[Tensor, "answer_tokens"]
    """Flags of the supervised tokens of all studies, row after row; see `dataset.Marks`."""
    disputed: Bool[Tensor, "answer_tokens"]


def collate_pairs(pairs: Sequence[Pair], pad_id: int, *, sharing: bool = False) -> PairBatch:
    """Collates pairs, all of which have a negative or none has.

    With ``sharing`` negatives that can share a positive's prompt get ``prompt_rows``; see `Batch`.
    """
    negatives = [pair.negative for pair in pairs if pair.negative is not None]
    if negatives and len(negatives) != len(pairs):
        raise ValueError("either every pair of a batch has a negative or none has")
    rows = _prompt_rows(pairs) if sharing else None
    return {
        "studies": [pair.positive.study for pair in pairs],
        "finding_labels": torch.tensor([_labels(pair.positive) for pair in pairs]),
        "positive": collate_samples([pair.positive for pair in pairs], pad_id),
        "negative": collate_samples(negatives, pad_id, rows) if negatives else None,
        "shown": [pair.shown for pair in pairs],
        "finding": torch.cat([pair.marks.finding for pair in pairs]),
        "disputed": torch.cat([pair.marks.disputed for pair in pairs]),
    }


def collate_samples(
    samples: Sequence[Sample], pad_id: int, prompt_rows: list[int | None] | None = None
) -> Batch:
    """Collates the samples of one branch; ``prompt_rows`` as in `Batch`."""
    batch = Batch(
        input_ids=_pad([sample.input_ids for sample in samples], pad_id),
        attention_mask=_pad([torch.ones_like(sample.input_ids) for sample in samples], 0),
        labels=_pad([sample.labels for sample in samples], IGNORED),
        video_grid_thw=torch.tensor([sample.visual.grid_thw for sample in samples]),
        position_mm=_pad([torch.tensor(s.visual.position_mm) for s in samples], 0.0),
    )
    if prompt_rows is not None:
        batch["prompt_rows"] = prompt_rows
        samples = [s for s, row in zip(samples, prompt_rows, strict=True) if row is None]
    frames = [s.visual.frames for s in samples if s.visual.frames is not None]
    tokens = [s.visual.visual_tokens for s in samples if s.visual.visual_tokens is not None]
    if len(frames) == len(samples) and not tokens:
        batch["frames"] = frames
    elif len(tokens) == len(samples) and not frames:
        batch["visual_tokens"] = torch.cat(tokens)
    else:
        raise ValueError("all samples of a batch show frames, or all show stored features")
    return batch


def _prompt_rows(pairs: Sequence[Pair]) -> list[int | None]:
    """For each negative the row of the positive with the same volume and prompt, if any."""
    rows = {_prompt(pair.positive, pair.positive.study): row for row, pair in enumerate(pairs)}
    return [
        None
        if pair.shown is None or pair.negative is None
        else rows.get(_prompt(pair.negative, pair.shown))
        for pair in pairs
    ]


def _prompt(sample: Sample, volume: str) -> tuple[str, GridThw, tuple[float, ...], tuple[int, ...]]:
    """A key for everything before the report, equal where it is equal to the model."""
    visual, words = sample.visual, sample.input_ids[sample.labels == IGNORED]
    return volume, visual.grid_thw, visual.position_mm, tuple(words.tolist())


def _labels(sample: Sample) -> list[float]:
    return list(map(float, sample.findings or [math.nan] * len(FINDINGS)))


def _pad(rows: Sequence[Tensor], value: float | int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
