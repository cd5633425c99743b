"""Qwen2.5-VL: all slices in one vision block, depth in the position ids."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.backbone import MERGE, Backbone, Positions

MM_PER_SECOND = 10.0
"""In `depth` mode, millimetres along the body for one second of video. With two positions per
second, one position is 5 mm."""


def _place_tokens(
    config: PreTrainedConfig,
    is_video: Bool[Tensor, "tokens"],
    grid_thw: Sequence[int],
    position_mm: Float[Tensor, "pairs"],
    mode: Positions,
) -> Int[Tensor, "3 tokens"]:
    """A visual token has (start + time(t), start + row, start + column).

    In `index` mode time(t) is ``tokens_per_second`` · t, and text goes on after the largest of rows
    and columns; every transformers release, vLLM and SGLang agree on that as long as time stays
    below the larger side. In `depth` mode time follows the mean superior coordinate of the slice
    pair, counted from the most cranial one in steps of `MM_PER_SECOND` / ``tokens_per_second`` mm;
    different depths are kept at least one step apart, and text goes on after the largest index.
    """
    tokens_per_second = config.vision_config.tokens_per_second
    if mode == "index":
        time = _index_time(grid_thw, tokens_per_second)
    else:
        time = _depth_time(position_mm, MM_PER_SECOND / tokens_per_second)
    return _interleave(is_video, _video_positions(time.to(is_video.device), grid_thw), mode)


def _index_time(grid: Sequence[int], tokens_per_second: int) -> Int[Tensor, "pairs"]:
    pairs, rows, columns = grid
    last, side = tokens_per_second * (pairs - 1), max(rows, columns) // MERGE
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
    time: Int[Tensor, "pairs"], grid: Sequence[int]
) -> Int[Tensor, "3 visual_tokens"]:
    if len(time) != grid[0]:
        raise CtscribeError(
            "E_POSITIONS",
            f"every slice pair needs one position in mm, but {grid[0]} pairs came with {len(time)}",
        )
    rows = torch.arange(grid[1] // MERGE, device=time.device)
    columns = torch.arange(grid[2] // MERGE, device=time.device)
    return torch.stack(torch.meshgrid(time, rows, columns, indexing="ij")).flatten(1)


def _interleave(
    is_video: Bool[Tensor, "tokens"], video: Int[Tensor, "3 visual_tokens"], mode: Positions
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


QWEN2_5_VL = Backbone(
    title="Qwen2.5-VL",
    model_type="qwen2_5_vl",
    model=Qwen2_5_VLForConditionalGeneration,
    rope={"rope_theta": 1e6},
    tower={"window_size": 112, "tokens_per_second": 2},
    patch_px=14,
    pixel_mean=(0.48145466, 0.4578275, 0.40821073),  # CLIP's
    pixel_std=(0.26862954, 0.26130258, 0.27577711),
    language_linears=(
        r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
    ),
    tower_linears=r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)",
    markers=lambda position_mm, mode: None,
    place_tokens=_place_tokens,
    tower_features=lambda output: output.pooler_output,
    mergers=lambda tower: [tower.merger],
    further_inputs=lambda is_video, levels: {},
    older_rope={"type": "mrope"},
    processors={
        "processor": "Qwen2_5_VLProcessor",
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen2VLVideoProcessor",
    },
)
