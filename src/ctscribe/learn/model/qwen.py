"""The forward pass of training: a batch in, the cross entropy of every answer token out."""

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
from ctscribe.learn.model.finding_queries import GatedTokens, gate_visual_tokens
from ctscribe.learn.model.packing import (
    Prefixes,
    ReusedPrefixes,
    StoredPrefixes,
    checkpointing_every_layer,
    run_packed,
)
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.tower import encode_frames, project_features
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
    """Cross entropy of the answer's tokens given all tokens before them.

    The rows, padded on either side, are packed without their padding (see `packing`). Logits are
    computed at answer positions only, so vision, prompt and padding have no loss.

    Raises:
        CtscribeError: ``E_POSITIONS`` and ``E_VISUAL_TOKENS`` as `position_ids` and `embed` do.
    """
    return _losses(qwen, batch, positions, _visual_tokens(qwen, batch))


def losses_of_both(
    qwen: PreTrainedModel, positive: Batch, negative: Batch, positions: Positions
) -> tuple[AnswerLosses, AnswerLosses]:
    """`answer_losses` of both branches in one graph, where they share prompts.

    ``negative["prompt_rows"]`` names, for each negative, the positive with the same volume and
    prompt. Of such a negative only the report goes through the model; it attends to the keys and
    values that the positive's prompt has left in each layer.

    The negatives' layers are checkpointed. So both branches take little more memory than the
    positives alone, and a negative whose loss is not used in the backward pass costs no more than
    its forward pass.

    Raises:
        CtscribeError: As `answer_losses`.
    """
    prefixes = StoredPrefixes()
    seen = _visual_tokens(qwen, positive)
    positive_losses = _losses(qwen, positive, positions, seen, prefixes)
    rows = negative["prompt_rows"]
    unshared = [number for number, row in enumerate(rows) if row is None]
    shown = GatedTokens(seen.visual_tokens[:0], None)
    if unshared:
        shown = _visual_tokens(qwen, negative, unshared)
    reused = ReusedPrefixes(prefixes, rows)
    with checkpointing_every_layer(qwen.model.language_model):
        negative_losses = _losses(qwen, negative, positions, shown, reused)
    return positive_losses, negative_losses


def _losses(
    qwen: PreTrainedModel,
    batch: Batch,
    positions: Positions,
    shown: GatedTokens,
    prefixes: Prefixes | None = None,
) -> AnswerLosses:
    device = qwen.lm_head.weight.device
    ids, mask, grid = batch["input_ids"], batch["attention_mask"], batch["video_grid_thw"]
    place = position_ids(qwen.config, ids, mask, grid, batch["position_mm"], positions)
    packed = mask.bool()
    if isinstance(prefixes, ReusedPrefixes):
        packed = packed & ~_in_reused_prefix(batch["labels"], prefixes.rows)
    labels, lengths = batch["labels"][packed], packed.sum(1)
    answer = (labels != IGNORED).nonzero()[:, 0]
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)[answer]
    predicting = answer - 1  # the state at i − 1 predicts the token at i
    ends = lengths.cumsum(0)
    keep_last = ends - ends.scatter_reduce(0, rows, predicting, "amin")
    hidden = run_packed(
        qwen.model.language_model,
        language_inputs(qwen, ids[packed][None].to(device), shown.visual_tokens),
        place[:, packed][:, None].to(device),
        lengths.tolist(),
        keep_last.tolist(),
        prefixes,
    )
    num_dropped = ends - keep_last.cumsum(0)  # states not kept, of each sample and those before
    kept = predicting - num_dropped[rows]
    values = token_cross_entropy(
        hidden[0, kept.to(device)], qwen.lm_head.weight, labels[answer].to(device)
    )
    return AnswerLosses(values, rows.to(device), len(lengths), shown.logits)


def _in_reused_prefix(
    labels: Int[Tensor, "batch tokens"], rows: Sequence[int | None]
) -> Bool[Tensor, "batch tokens"]:
    """Marks prompt tokens that are not run again; see `ReusedPrefixes` for ``rows``.

    The prompt's last token is run, because its state predicts the answer's first.
    """
    last_of_prompt = (labels != IGNORED).long().argmax(1) - 1
    is_reused = torch.tensor([row is not None for row in rows], device=labels.device)
    before = torch.arange(labels.shape[1], device=labels.device) < last_of_prompt[:, None]
    return before & is_reused[:, None]


def language_inputs(
    qwen: PreTrainedModel,
    input_ids: Int[Tensor, "batch tokens"],
    visual_tokens: Float[Tensor, "visual_tokens width"],
) -> dict[str, Any]:
    """The decoder's inputs: token embeddings, and what Qwen3-VL adds to its first layers.

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
    """`language_inputs` of rows of equal length as one batch."""
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
    """Embeds the tokens, then replaces each ``<|video_pad|>`` by the next visual token.

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


def _visual_tokens(
    qwen: PreTrainedModel, batch: Batch, rows: Sequence[int] | slice = slice(None)
) -> GatedTokens:
    """The batch's visual tokens, from stored features or, where the tower learns, from frames.

    ``rows`` are the rows of the batch that the features or frames belong to.
    """
    stored = batch.get("visual_tokens")
    if stored is None:
        tokens = encode_frames(qwen, batch["frames"])
    else:
        tokens = project_features(qwen, stored.to(qwen.lm_head.weight.device))
    return gate_visual_tokens(qwen, tokens, batch["video_grid_thw"][rows])
