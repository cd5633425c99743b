"""The trainers that `bench_train` compares ours with: the library's forward pass, and one of both.

Their loss is CE(positive) − β·min(CE(negative), cap), with the cap beyond reach.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from ctscribe.learn.model.patches import patchify
from ctscribe.learn.pairs.collate import Batch, PairBatch
from ctscribe.learn.pairs.dataset import Pair

BETA, OUT_OF_REACH = 0.1, 100.0


class Plain(Trainer):
    """Hugging Face's own forward pass for each branch: all logits, both graphs, the tower too."""

    def __init__(self, **trainer: Any) -> None:
        super().__init__(**trainer)
        self.model_accepts_loss_kwargs = False  # divide each micro-batch's mean

    def compute_loss(self, model: nn.Module, inputs: Any, **_: Any) -> Tensor:
        positive, negative = (model(**inputs[name]).loss for name in ("positive", "negative"))
        return positive - BETA * negative.clamp(max=OUT_OF_REACH)


class Together(Trainer):
    """The same loss from our answer losses, both branches still in one graph."""

    def compute_loss(self, model: nn.Module, inputs: PairBatch, **_: Any) -> Tensor:
        branches = (inputs["positive"], inputs["negative"])
        positive, negative = (model(branch).per_sample().mean() for branch in branches)
        return positive - BETA * negative.clamp(max=OUT_OF_REACH)


def collate_plain(
    collate: Callable[[Sequence[Pair]], PairBatch], video_token_id: int, pairs: Sequence[Pair]
) -> dict[str, dict[str, Tensor]]:
    batch = collate(pairs)
    assert batch["negative"] is not None
    return {
        "positive": _as_the_library_wants(batch["positive"], video_token_id),
        "negative": _as_the_library_wants(batch["negative"], video_token_id),
    }


def _as_the_library_wants(batch: Batch, video_token_id: int) -> dict[str, Tensor]:
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["labels"],
        "pixel_values_videos": torch.cat([patchify(frames)[0] for frames in batch["frames"]]),
        "video_grid_thw": batch["video_grid_thw"],
        "second_per_grid_ts": torch.ones(len(batch["labels"])),
        "mm_token_type_ids": (batch["input_ids"] == video_token_id).int() * 2,
        "use_cache": False,
    }
