"""Where every token stands in time, row and column: position ids that no release changes."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from ctscribe.base.errors import CtscribeError

MM_PER_SECOND = 10.0
"""In `depth` mode, how far down the body one second of a video corresponds to. With Qwen2.5-VL's
two positions a second, one position is 5 mm."""


def position_ids(
    config: Qwen2_5_VLConfig,
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"],
    video_grid_thw: Int[Tensor, "batch 3"],
    position_mm: Float[Tensor, "batch slice_pairs"],
    mode: Literal["index", "depth"],
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
        config: Gives the video token's id, ``tokens_per_second`` and ``spatial_merge_size``.
        input_ids: One video per row; padding on either side.
        attention_mask: 1 for real tokens; padding gets index 0 and does not count.
        video_grid_thw: Patches along (slice pairs, rows, columns), before the merger.
        position_mm: Superior coordinate of each slice pair; read in `depth` mode only.
        mode: `index` or `depth`.

    Raises:
        CtscribeError: ``E_POSITIONS`` outside the mode's safe regime, or when the number of
            ``<|video_pad|>`` tokens is not what the grid asks for.
    """
    merge_size = config.vision_config.spatial_merge_size
    tokens_per_second = config.vision_config.tokens_per_second
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    for row, grid in enumerate(video_grid_thw.tolist()):
        real = attention_mask[row].bool()
        is_video = input_ids[row][real] == config.video_token_id
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
