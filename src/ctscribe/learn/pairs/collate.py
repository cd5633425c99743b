"""Pairs put together into the tensors a training step takes."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ctscribe.learn.pairs.dataset import Pair, Sample
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import IGNORED


class Batch(TypedDict):
    """Studies side by side, padded on the right; Hugging Face's names."""

    input_ids: Int64[Tensor, "batch sequence"]
    attention_mask: Int64[Tensor, "batch sequence"]
    """1 on tokens, 0 on padding."""
    labels: Int64[Tensor, "batch sequence"]
    """−100 except on the answer and the token that ends it."""
    video_grid_thw: Int64[Tensor, "batch 3"]
    """Slice pairs, and rows and columns of 14-px patches."""
    position_mm: Float[Tensor, "batch slice_pairs"]
    """Mean superior coordinate of each slice pair; 0 behind a shorter volume's last."""
    frames: NotRequired[list[Tensor]]
    """Per study uint8 [slices, height, width, 3]; or else:"""
    visual_tokens: NotRequired[Float[Tensor, "all_tokens hidden"]]
    """Stored features of all studies, one after the other."""


class PairBatch(TypedDict):
    """Whole pairs: row i of both branches is the same study."""

    studies: list[str]
    """Names, for errors."""
    finding_labels: Float[Tensor, "studies 18"]
    """1 present, 0 absent, NaN where a study has no labels."""
    positive: Batch
    negative: Batch | None
    """None when there are no negatives (origin)."""
    shown: list[str | None]
    """Volumes that the negatives show; None for noise and when there are no negatives."""
    finding: Bool[Tensor, "answer_tokens"]
    """Marks of the supervised tokens of all studies, row after row; see `dataset.Marks`."""
    disputed: Bool[Tensor, "answer_tokens"]


def collate_pairs(pairs: Sequence[Pair], pad_id: int) -> PairBatch:
    """Puts whole pairs together, with a negative each or none; the attention mask hides padding."""
    negatives = [pair.negative for pair in pairs if pair.negative is not None]
    if negatives and len(negatives) != len(pairs):
        raise ValueError("either every pair of a batch has a negative or none has")
    return {
        "studies": [pair.positive.study for pair in pairs],
        "finding_labels": torch.tensor([_labels(pair.positive) for pair in pairs]),
        "positive": collate_samples([pair.positive for pair in pairs], pad_id),
        "negative": collate_samples(negatives, pad_id) if negatives else None,
        "shown": [pair.shown for pair in pairs],
        "finding": torch.cat([pair.marks.finding for pair in pairs]),
        "disputed": torch.cat([pair.marks.disputed for pair in pairs]),
    }


def collate_samples(samples: Sequence[Sample], pad_id: int) -> Batch:
    """Pads one branch's samples to their longest and stacks them."""
    batch = Batch(
        input_ids=_pad([sample.input_ids for sample in samples], pad_id),
        attention_mask=_pad([torch.ones_like(sample.input_ids) for sample in samples], 0),
        labels=_pad([sample.labels for sample in samples], IGNORED),
        video_grid_thw=torch.tensor([sample.visual.grid_thw for sample in samples]),
        position_mm=_pad([torch.tensor(s.visual.position_mm) for s in samples], 0.0),
    )
    frames = [s.visual.frames for s in samples if s.visual.frames is not None]
    tokens = [s.visual.visual_tokens for s in samples if s.visual.visual_tokens is not None]
    if len(frames) == len(samples) and not tokens:
        batch["frames"] = frames
    elif len(tokens) == len(samples) and not frames:
        batch["visual_tokens"] = torch.cat(tokens)
    else:
        raise ValueError("all samples of a batch show frames, or all show stored features")
    return batch


def _labels(sample: Sample) -> list[float]:
    return list(map(float, sample.findings or [math.nan] * len(FINDINGS)))


def _pad(rows: Sequence[Tensor], value: float | int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
