"""Frames into the tower, tokens through the language model, one loss per answer token."""

import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from ctscribe.base.errors import CtscribeError

PATCH_PX, MERGE = 14, 2
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


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
