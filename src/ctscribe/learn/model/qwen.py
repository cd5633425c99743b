"""Frames into the tower, tokens through the language model, one loss per answer token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.cross_entropy import token_cross_entropy
from ctscribe.learn.model.finding_queries import gate
from ctscribe.learn.model.patches import MERGE, patchify
from ctscribe.learn.model.segments import run_in_segments
from ctscribe.learn.pairs.collate import Batch
from ctscribe.text.prompt import IGNORED

MM_PER_SECOND = 10.0
"""In `depth` mode, how far down the body one second of a video corresponds to. With Qwen2.5-VL's
two positions a second, one position is 5 mm."""


def position_ids(
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"],
    video_grid_thw: Int[Tensor, "batch 3"],
    position_mm: Float[Tensor, "batch slice_pairs"],
    mode: Literal["index", "depth"],
    *,
    video_token_id: int,
    tokens_per_second: int = 2,
    merge_size: int = 2,
) -> Int[Tensor, "3 batch tokens"]:
    """Time, row and column index of every token.

    Text counts up by one, all three indices alike. A visual token of slice pair t, row h and
    column w after the merger has (start + time(t), start + h, start + w). In `index` mode time(t)
    is ``tokens_per_second`` · t, and text goes on after the largest of rows and columns; every
    transformers release, vLLM and SGLang agree on that as long as time stays below the larger
    side. In `depth` mode time follows the mean superior coordinate of the slice pair, counted
    from the most cranial one in steps of `MM_PER_SECOND` / ``tokens_per_second`` mm; different
    depths are kept at least one step apart, and text goes on after the largest index used.

    Args:
        input_ids: One video per row; padding on either side.
        attention_mask: 1 for real tokens; padding gets index 0 and does not count.
        video_grid_thw: Patches along (slice pairs, rows, columns), before the merger.
        position_mm: Superior coordinate of each slice pair; read in `depth` mode only.
        mode: `index` or `depth`.
        video_token_id: The id of ``<|video_pad|>``.
        tokens_per_second: ``vision_config.tokens_per_second``.
        merge_size: ``vision_config.spatial_merge_size``.

    Raises:
        CtscribeError: ``E_POSITIONS`` outside the mode's safe regime, or when the number of
            ``<|video_pad|>`` tokens is not what the grid asks for.
    """
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    for row, grid in enumerate(video_grid_thw.tolist()):
        real = attention_mask[row].bool()
        is_video = input_ids[row][real] == video_token_id
        if mode == "index":
            time = _index_time(grid, tokens_per_second, merge_size)
        else:
            time = _depth_time(position_mm[row, : grid[0]], MM_PER_SECOND / tokens_per_second)
        video = _video_positions(time.to(input_ids.device), grid, merge_size)
        positions[:, row, real] = _interleave(is_video, video, mode)
    return positions


def _index_time(grid: list[int], tokens_per_second: int, merge_size: int) -> Int[Tensor, "pairs"]:
    pairs, rows, columns = grid
    last, side = tokens_per_second * (pairs - 1), max(rows, columns) // merge_size
    if last >= side and pairs > 1:
        raise CtscribeError(
            "E_POSITIONS",
            f"positions: index needs the last slice pair's time index ({last}) below the frame's "
            f"larger side in visual tokens ({side}), or releases disagree",
        )
    return torch.arange(pairs) * tokens_per_second


def _depth_time(position_mm: Float[Tensor, "pairs"], mm_per_step: float) -> Int[Tensor, "pairs"]:
    if not torch.isfinite(position_mm).all():
        raise CtscribeError(
            "E_POSITIONS",
            "positions: depth needs the position of every slice pair in mm, but one is not finite",
        )
    depth_mm = (position_mm.max() - position_mm).double()
    distinct, which = torch.unique(depth_mm, sorted=True, return_inverse=True)
    steps = torch.round(distinct / mm_per_step).long()
    # at least one apart: the running maximum of (step − rank), added back to the rank
    rank = torch.arange(len(steps), device=steps.device)
    return (torch.cummax(steps - rank, 0).values + rank)[which]


def _video_positions(
    time: Int[Tensor, "pairs"], grid: list[int], merge_size: int
) -> Int[Tensor, "3 visual_tokens"]:
    if len(time) != grid[0]:
        raise CtscribeError(
            "E_POSITIONS",
            f"every slice pair needs one position in mm, but {grid[0]} pairs came with {len(time)}",
        )
    rows = torch.arange(grid[1] // merge_size, device=time.device)
    columns = torch.arange(grid[2] // merge_size, device=time.device)
    return torch.stack(torch.meshgrid(time, rows, columns, indexing="ij")).flatten(1)


def _interleave(
    is_video: Bool[Tensor, "tokens"], video: Int[Tensor, "3 visual_tokens"], mode: str
) -> Int[Tensor, "3 tokens"]:
    """Text before, the video, text after; ``is_video`` marks one unbroken run."""
    where = is_video.nonzero().flatten()
    total = video.shape[1]
    if len(where) != total or int(where[-1] - where[0]) + 1 != total:
        raise CtscribeError(
            "E_POSITIONS",
            f"the prompt must hold one unbroken run of {total} <|video_pad|> tokens, but it holds "
            f"{len(where)}",
        )
    start = int(where[0])
    extent = int((video if mode == "depth" else video[1:]).max()) + 1
    after = torch.arange(len(is_video) - start - total, device=video.device) + start + extent
    before = torch.arange(start, device=video.device)
    return torch.cat([before.expand(3, -1), video + start, after.expand(3, -1)], dim=1)


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
        positions: Mode of `position_ids`.

    Raises:
        CtscribeError: ``E_POSITIONS`` and ``E_VISUAL_TOKENS`` as `position_ids` and
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
    """`position_ids` with this model's constants."""
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
