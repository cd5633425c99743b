"""Position ids (time, row, column) of all tokens, independent of the release of transformers."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.families import backbone_of


def position_ids(
    config: PreTrainedConfig,
    input_ids: Int[Tensor, "batch tokens"],
    attention_mask: Int[Tensor, "batch tokens"] | Bool[Tensor, "batch tokens"],
    video_grid_thw: Int[Tensor, "batch 3"],
    position_mm: Float[Tensor, "batch slice_pairs"],
    mode: Positions,
) -> Int[Tensor, "3 batch tokens"]:
    """Time, row and column index of every token.

    Text tokens have three equal indices that count up by one. The indices of visual tokens, and of
    the text behind them, depend on the family; see its `place_tokens`.

    Args:
        config: The model's.
        input_ids: One volume per row; padding on either side.
        attention_mask: 1 for real tokens; padding gets index 0 and does not count.
        video_grid_thw: Patches along (slice pairs, rows, columns), before the merger.
        position_mm: Superior coordinate of each slice pair; read in `depth` mode only.
        mode: `index` or `depth`.

    Raises:
        CtscribeError: ``E_POSITIONS`` where the mode cannot be used for these positions, or the
            ``<|video_pad|>`` tokens do not match the grid.
    """
    place_tokens = backbone_of(config).place_tokens
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long, device=input_ids.device)
    for row, grid in enumerate(video_grid_thw.tolist()):
        real = attention_mask[row].bool()
        is_video = input_ids[row][real] == config.video_token_id
        pairs_mm = position_mm[row, : grid[0]]
        positions[:, row, real] = place_tokens(config, is_video, grid, pairs_mm, mode)
    return positions
