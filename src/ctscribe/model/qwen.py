"""Frames into the tower, tokens through the language model, one loss per answer token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.errors import CtscribeError
from ctscribe.model.cross_entropy import token_cross_entropy
from ctscribe.model.positions import position_ids
from ctscribe.model.segments import run_in_segments
from ctscribe.model.slice_attention import gate
from ctscribe.pairs.collate import Batch
from ctscribe.reports.prompt import IGNORED

PATCH_PX, MERGE = 14, 2
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@final
@dataclass(frozen=True)
class AnswerLosses:
    """Cross entropy of every supervised token of a batch."""

    values: Float32[Tensor, "answer_tokens"]
    """Nats, row after row in reading order."""
    rows: Int[Tensor, "answer_tokens"]
    """Row of the batch each token belongs to."""
    num_rows: int
    """Rows in the batch."""
    finding_logits: Float[Tensor, "batch 18"] | None = None
    """Log-odds of each row's findings, where the model has finding queries."""

    def per_sample(self) -> Float32[Tensor, "batch"]:
        """Mean over the answer tokens of each row."""
        ones = torch.ones_like(self.values)
        zeros = torch.zeros(self.num_rows, dtype=self.values.dtype, device=self.values.device)
        total = zeros.index_add(0, self.rows, self.values)
        return total / zeros.index_add(0, self.rows, ones)


def patchify(
    frames: UInt8[Tensor, "slices height width 3"],
) -> tuple[Float32[Tensor, "patches 1176"], Int[Tensor, "3"]]:
    """Normalises frames and cuts them into patches, as Qwen2.5-VL's video processor does.

    Each row is one patch of two slices, channel slowest: 3 channels × 2 slices × 14 × 14 px. Rows
    run over slice pairs, then over 2 × 2 groups of patches, so that four rows in a row become one
    visual token. Runs on the device the frames are on.

    Args:
        frames: An even number of slices, sides multiples of 28 px.

    Returns:
        The patches, and the grid (slice pairs, patch rows, patch columns), int64.

    Raises:
        CtscribeError: ``E_FRAMES`` for an odd number of slices or other sides.
    """
    slices, height, width, _ = frames.shape
    if slices % 2 or height % (PATCH_PX * MERGE) or width % (PATCH_PX * MERGE):
        raise CtscribeError(
            "E_FRAMES",
            "frames must come in pairs with sides a multiple of 28 px, but there are "
            f"{slices} of {height} × {width}",
        )
    mean = torch.tensor(CLIP_MEAN, device=frames.device) * 255
    std = torch.tensor(CLIP_STD, device=frames.device) * 255
    grid = (slices // 2, height // PATCH_PX, width // PATCH_PX)
    pixels = ((frames.float() - mean) / std).reshape(
        grid[0], 2, grid[1] // MERGE, MERGE, PATCH_PX, grid[2] // MERGE, MERGE, PATCH_PX, 3
    )
    patches = pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(grid[0] * grid[1] * grid[2], -1)
    return patches, torch.tensor(grid)


def encode_frames(
    qwen: Qwen2_5_VLForConditionalGeneration,
    frames: Sequence[UInt8[Tensor, "_ _ _ 3"]],
    *,
    merged: bool = True,
) -> Float[Tensor, "visual_tokens width"]:
    """Runs the vision tower and its merger.

    Slice pairs never see each other in the tower, so the result for a pair depends on that pair
    alone.

    Args:
        qwen: The model; the frames are moved to its device.
        frames: One volume each; sizes may differ.
        merged: False leaves the merger out and gives what goes into it, four patches side by
            side per visual token; `merge` makes visual tokens of them.

    Returns:
        Visual tokens of all volumes, volume after volume, in the model's dtype.
    """
    tower = qwen.model.visual
    parts = [patchify(volume.to(tower.device)) for volume in frames]
    patches = torch.cat([part[0] for part in parts]).to(tower.dtype)
    grids = torch.stack([part[1] for part in parts]).to(tower.device)
    if merged:
        features: Tensor = tower(patches, grid_thw=grids).pooler_output
        return features
    with tower.merger.register_forward_hook(_what_goes_in):
        features = tower(patches, grid_thw=grids).pooler_output
    return features


def merge(
    qwen: Qwen2_5_VLForConditionalGeneration, tokens: Float[Tensor, "visual_tokens width"]
) -> Float[Tensor, "visual_tokens hidden"]:
    """Sends what was stored before the merger through it; what was behind it stays as it is."""
    merger = qwen.model.visual.merger
    if tokens.shape[1] != merger.hidden_size or tokens.shape[1] == merger.mlp[-1].out_features:
        return tokens
    merged: Tensor = merger(tokens.reshape(MERGE**2 * len(tokens), -1))
    return merged


def embed(
    qwen: Qwen2_5_VLForConditionalGeneration,
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


def answer_losses(
    qwen: Qwen2_5_VLForConditionalGeneration,
    batch: Batch,
    positions: Literal["index", "depth"],
) -> AnswerLosses:
    """Cross entropy of the answer's tokens, and of nothing else.

    The rows lie end to end without their padding, each attending to itself alone, and the
    vocabulary is reached for answer positions only. Vision, prompt and padding positions have no
    loss because they are never looked at.

    Args:
        qwen: The model.
        batch: Padded on either side; moved to the model's device.
        positions: Mode of `positions.position_ids`.

    Raises:
        CtscribeError: ``E_POSITIONS`` and ``E_VISUAL_TOKENS`` as `positions.position_ids` and
            `embed` do.
    """
    device = qwen.lm_head.weight.device
    real, lengths = batch["attention_mask"].bool(), batch["attention_mask"].sum(1)
    seen = gate(qwen, _visual_tokens(qwen, batch), batch["video_grid_thw"])
    place = positions_for(
        qwen,
        batch["input_ids"],
        batch["attention_mask"],
        batch["video_grid_thw"],
        batch["position_mm"],
        positions,
    )
    labels = batch["labels"][real]
    answer = (labels != IGNORED).nonzero()[:, 0]
    rows = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)[answer]
    ends = lengths.cumsum(0)
    # the token at i is predicted from position i − 1, and nothing before the first of these is read
    wanted = ends - ends.scatter_reduce(0, rows, answer - 1, "amin")
    hidden = run_in_segments(
        qwen.model.language_model,
        embed(qwen, batch["input_ids"][real][None].to(device), seen.visual_tokens),
        place[:, real][:, None].to(device),
        lengths.tolist(),
        wanted.tolist(),
    )
    read = answer - 1 - (ends - wanted.cumsum(0))[rows]
    values = token_cross_entropy(
        hidden[0, read.to(device)], qwen.lm_head.weight, labels[answer].to(device)
    )
    return AnswerLosses(values, rows.to(device), len(lengths), seen.logits)


def positions_for(
    qwen: Qwen2_5_VLForConditionalGeneration,
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"],
    video_grid_thw: Int[Tensor, "batch 3"],
    position_mm: Float[Tensor, "batch slice_pairs"],
    mode: Literal["index", "depth"],
) -> Int[Tensor, "3 batch tokens"]:
    """`positions.position_ids` with this model's constants."""
    return position_ids(
        input_ids,
        attention_mask,
        video_grid_thw,
        position_mm,
        mode,
        video_token_id=qwen.config.video_token_id,
        tokens_per_second=qwen.config.vision_config.tokens_per_second,
        merge_size=qwen.config.vision_config.spatial_merge_size,
    )


def _visual_tokens(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> Float[Tensor, "visual_tokens hidden"]:
    """From what the tower stored or, where it learns, from the frames."""
    stored = batch.get("visual_tokens")
    if stored is None:
        return encode_frames(qwen, batch["frames"])
    return merge(qwen, stored.to(qwen.lm_head.weight.device))


def _what_goes_in(
    _: nn.Module, args: tuple[Tensor], __: Tensor
) -> Float[Tensor, "visual_tokens width"]:
    return args[0].reshape(-1, MERGE**2 * args[0].shape[1])
