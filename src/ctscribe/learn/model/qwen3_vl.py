"""Qwen3-VL: each slice pair in a vision block of its own, behind its depth as a timestamp.

Because depth is text, position ids are those of the library and of every server. Features of the
tower's further levels are added to the outputs of the decoder's first layers ("deepstack").
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig, Qwen3VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.backbone import MERGE, Backbone, Positions

_FRAMES_PER_SECOND = 2.0
"""Slices per second in `index` mode; a pair's time is the mean of its two slices'."""


def _markers(position_mm: Sequence[float], mode: Positions) -> tuple[str, ...]:
    """Timestamps. In `depth` mode a second is a millimetre below the most cranial pair."""
    if mode == "index":
        times = [(2 * pair + 0.5) / _FRAMES_PER_SECOND for pair in range(len(position_mm))]
    else:
        times = [max(position_mm) - each for each in position_mm]
    return tuple(f"<{time:.1f} seconds>" for time in times)


def _place_tokens(
    config: PreTrainedConfig,
    is_video: Bool[Tensor, "tokens"],
    grid_thw: Sequence[int],
    position_mm: Float[Tensor, "pairs"],
    mode: Positions,
) -> Int[Tensor, "3 tokens"]:
    """A visual token has (start, start + row, start + column), with the start of its vision block.

    The text behind a block continues after the larger of its numbers of rows and columns.
    """
    pairs, rows, columns = grid_thw[0], grid_thw[1] // MERGE, grid_thw[2] // MERGE
    where = is_video.nonzero()[:, 0]
    last = is_video & ~torch.cat([is_video[1:], is_video.new_zeros(1)])
    first = is_video & ~torch.cat([is_video.new_zeros(1), is_video[:-1]])
    lengths = last.nonzero()[:, 0] - first.nonzero()[:, 0] + 1
    if lengths.tolist() != [rows * columns] * pairs:
        raise CtscribeError(
            "E_POSITIONS",
            f"the prompt must hold {pairs} runs of {rows * columns} <|video_pad|> tokens, each "
            f"behind its slice pair's depth, but it holds runs of {lengths.tolist()}",
        )
    advance = (~is_video).long() + last.long() * max(rows, columns)
    places = (advance.cumsum(0) - advance).repeat(3, 1)
    cells = torch.arange(rows * columns, device=where.device).repeat(pairs)
    places[1, where] += cells // columns
    places[2, where] += cells % columns
    return places


def _further_inputs(is_video: Bool[Tensor, "batch tokens"], levels: list[Tensor]) -> dict[str, Any]:
    return {"visual_pos_masks": is_video, "deepstack_visual_embeds": levels}


QWEN3_VL = Backbone(
    title="Qwen3-VL",
    model_type="qwen3_vl",
    model=Qwen3VLForConditionalGeneration,
    rope={"rope_theta": 5e6, "mrope_interleaved": True},
    tower={},
    patch_px=16,
    pixel_mean=(0.5, 0.5, 0.5),
    pixel_std=(0.5, 0.5, 0.5),
    language_linears=(
        r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    ),
    tower_linears=r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc(1|2))",
    markers=_markers,
    place_tokens=_place_tokens,
    tower_features=lambda output: torch.cat([output.pooler_output, *output.deepstack_features], 1),
    mergers=lambda tower: [tower.merger, *tower.deepstack_merger_list],
    further_inputs=_further_inputs,
    older_rope={"rope_type": "default", "mrope_interleaved": True},
    processors={
        "processor": "Qwen3VLProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen3VLVideoProcessor",
    },
)
