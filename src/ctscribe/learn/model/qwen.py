"""A batch through the model: visual tokens in their places, one loss per answer token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.cross_entropy import token_cross_entropy
from ctscribe.learn.model.families import backbone_of
from ctscribe.learn.model.finding_queries import Gated, gate
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.segments import (
    KeptPrompts,
    Prompts,
    ReadPrompts,
    keeping_inputs,
    run_in_segments,
)
from ctscribe.learn.model.tower import encode_frames, merge
from ctscribe.learn.pairs.collate import Batch
from ctscribe.text.prompt import IGNORED


@final
@dataclass(frozen=True)
class AnswerLosses:
    """Cross entropy of every supervised token of a batch."""

    values: Float[Tensor, "answer_tokens"]
    """Nats, row after row in reading order; float32 or wider."""
    rows: Int[Tensor, "answer_tokens"]
    """Row of the batch each token belongs to."""
    num_rows: int
    finding_logits: Float[Tensor, "batch 18"] | None = None
    """Log-odds of each row's findings, where the model has finding queries."""

    def per_sample(self) -> Float[Tensor, "batch"]:
        """Mean over the answer tokens of each row."""
        ones = torch.ones_like(self.values)
        zeros = torch.zeros(self.num_rows, dtype=self.values.dtype, device=self.values.device)
        total = zeros.index_add(0, self.rows, self.values)
        return total / zeros.index_add(0, self.rows, ones)


def answer_losses(qwen: PreTrainedModel, batch: Batch, positions: Positions) -> AnswerLosses:
    """Cross entropy of the answer's tokens, and of nothing else.

    The rows, padded on either side, lie end to end without their padding, each attending to
    itself alone, and the vocabulary is reached for answer positions only. Vision, prompt and
    padding positions have no loss because none is computed for them.

    Raises:
        CtscribeError: ``E_POSITIONS`` and ``E_VISUAL_TOKENS`` as `position_ids` and `embed` do.
    """
    return _losses(qwen, batch, positions, _shown(qwen, batch))


def losses_of_both(
    qwen: PreTrainedModel, positive: Batch, negative: Batch, positions: Positions
) -> tuple[AnswerLosses, AnswerLosses]:
    """`answer_losses` of both branches in one graph; a prompt that stands in both is read once.

    The positives go through the model whole. Of negatives that ``negative["prompt_rows"]`` gives a
    positive with the same volume and prompt only the texts do, behind what the layers made of it.
    Layers keep nothing of the negatives but their inputs, and compute the rest again for gradients:
    so both take little more memory than the positives, and where nothing is asked of the negatives
    they take no more time than to look at them.

    Raises:
        CtscribeError: As `answer_losses`.
    """
    kept = KeptPrompts()
    seen = _shown(qwen, positive)
    right = _losses(qwen, positive, positions, seen, kept)
    rows = negative["prompt_rows"]
    alone = [number for number, row in enumerate(rows) if row is None]
    shown = Gated(seen.visual_tokens[:0], None)
    if alone:
        shown = _shown(qwen, negative, alone)
    with keeping_inputs(qwen.model.language_model):
        wrong = _losses(qwen, negative, positions, shown, ReadPrompts(kept, rows))
    return right, wrong


def _losses(
    qwen: PreTrainedModel,
    batch: Batch,
    positions: Positions,
    shown: Gated,
    prompts: Prompts | None = None,
) -> AnswerLosses:
    device = qwen.lm_head.weight.device
    ids, mask, grid = batch["input_ids"], batch["attention_mask"], batch["video_grid_thw"]
    place = position_ids(qwen.config, ids, mask, grid, batch["position_mm"], positions)
    real = mask.bool()
    if isinstance(prompts, ReadPrompts):
        real = real & ~_read_before(batch["labels"], prompts.rows)
    labels, lengths = batch["labels"][real], real.sum(1)
    answer = (labels != IGNORED).nonzero()[:, 0]
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)[answer]
    ends = lengths.cumsum(0)
    # the token at i is predicted from position i − 1, and nothing before the first of these is read
    wanted = ends - ends.scatter_reduce(0, rows, answer - 1, "amin")
    hidden = run_in_segments(
        qwen.model.language_model,
        language_inputs(qwen, ids[real][None].to(device), shown.visual_tokens),
        place[:, real][:, None].to(device),
        lengths.tolist(),
        wanted.tolist(),
        prompts,
    )
    read = answer - 1 - (ends - wanted.cumsum(0))[rows]
    values = token_cross_entropy(
        hidden[0, read.to(device)], qwen.lm_head.weight, labels[answer].to(device)
    )
    return AnswerLosses(values, rows.to(device), len(lengths), shown.logits)


def _read_before(
    labels: Int[Tensor, "batch tokens"], rows: Sequence[int | None]
) -> Bool[Tensor, "batch tokens"]:
    """Tokens before the first that is read, in those rows whose prompt was read elsewhere."""
    first = (labels != IGNORED).long().argmax(1) - 1
    elsewhere = torch.tensor([row is not None for row in rows], device=labels.device)
    before = torch.arange(labels.shape[1], device=labels.device) < first[:, None]
    return before & elsewhere[:, None]


def language_inputs(
    qwen: PreTrainedModel,
    input_ids: Int[Tensor, "batch tokens"],
    visual_tokens: Float[Tensor, "visual_tokens width"],
) -> dict[str, Any]:
    """What the language model reads in the place of ids: embeddings, and the tower's other levels.

    Raises:
        CtscribeError: ``E_VISUAL_TOKENS`` as `embed` does.
    """
    first, *further = torch.split(visual_tokens, qwen.config.text_config.hidden_size, dim=1)
    is_video = input_ids == qwen.config.video_token_id
    return {
        "inputs_embeds": embed(qwen, input_ids, first),
        **backbone_of(qwen).further_inputs(is_video, further),
    }


def stack_inputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`language_inputs` of rows of one length as one batch: levels of the tower lie end to end."""
    batch: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], list):
            batch[name] = [torch.cat(level) for level in zip(*values, strict=True)]
        else:
            batch[name] = torch.cat(values)
    return batch


def embed(
    qwen: PreTrainedModel,
    input_ids: Int[Tensor, "batch tokens"],
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
) -> Float[Tensor, "batch tokens hidden"]:
    """Embeds text and puts the visual tokens, in order, where ``<|video_pad|>`` stands.

    Raises:
        CtscribeError: ``E_VISUAL_TOKENS`` when their numbers differ.
    """
    embeds: Tensor = qwen.get_input_embeddings()(input_ids)
    is_video = input_ids == qwen.config.video_token_id
    if int(is_video.sum()) != len(visual_tokens):
        raise CtscribeError(
            "E_VISUAL_TOKENS",
            f"each <|video_pad|> needs one visual token, but {int(is_video.sum())} stand in the "
            f"text and {len(visual_tokens)} came from the frames",
        )
    return embeds.masked_scatter(is_video[..., None], visual_tokens.to(embeds))


def _shown(qwen: PreTrainedModel, batch: Batch, rows: Sequence[int] | slice = slice(None)) -> Gated:
    """From what the tower stored or, where it learns, from the frames, which are of ``rows``."""
    stored = batch.get("visual_tokens")
    if stored is None:
        tokens = encode_frames(qwen, batch["frames"])
    else:
        tokens = merge(qwen, stored.to(qwen.lm_head.weight.device))
    return gate(qwen, tokens, batch["video_grid_thw"][rows])
