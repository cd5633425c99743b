"""The vision tower: frames in, visual tokens out, in few and large operations.

transformers loops over attention windows in Python unless a flash kernel is used, 3,520 calls for
one volume of 504 × 504, and cuts patches with a 3D convolution whose stride is its kernel. Windows
of equal size can be one batch, and such a convolution is one matrix product. Names, weights and
results stay the same, on any device.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed

from ctscribe.base.errors import CtscribeError

PATCH_PX, MERGE = 14, 2
"""Side of a patch, and patches along each side of a visual token."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# "flash" in the name makes the tower hand over all tokens at once, with their boundaries
_ATTENTION = "ctscribe_flash_batched_windows"


def encode_frames(
    qwen: Qwen2_5_VLForConditionalGeneration,
    frames: Sequence[UInt8[Tensor, "_ _ _ 3"]],
    *,
    merged: bool = True,
) -> Float[Tensor, "visual_tokens width"]:
    """Visual tokens of all volumes, volume after volume, in the model's dtype.

    Slice pairs never see each other in the tower, so the result for a pair depends on that pair
    alone. Sizes of volumes may differ. Without ``merged`` the merger is left out: the result is
    what goes into it, four patches side by side per visual token, and `merge` does the rest.
    """
    tower = qwen.model.visual
    parts = [patchify(volume.to(tower.device)) for volume in frames]
    patches = torch.cat([part[0] for part in parts]).to(tower.dtype)
    grids = torch.stack([part[1] for part in parts]).to(tower.device)
    if merged:
        features: Tensor = tower(patches, grid_thw=grids).pooler_output
        return features
    with tower.merger.register_forward_hook(_return_input):
        features = tower(patches, grid_thw=grids).pooler_output
    return features


def _return_input(
    _: nn.Module, args: tuple[Tensor], __: Tensor
) -> Float[Tensor, "visual_tokens width"]:
    return args[0].reshape(-1, MERGE**2 * args[0].shape[1])


def merge(
    qwen: Qwen2_5_VLForConditionalGeneration, tokens: Float[Tensor, "visual_tokens width"]
) -> Float[Tensor, "visual_tokens hidden"]:
    """Sends what was stored before the merger through it; what was behind it stays as it is."""
    merger = qwen.model.visual.merger
    if tokens.shape[1] != merger.hidden_size or tokens.shape[1] == merger.mlp[-1].out_features:
        return tokens
    merged: Tensor = merger(tokens.reshape(MERGE**2 * len(tokens), -1))
    return merged


def patchify(
    frames: UInt8[Tensor, "slices height width 3"],
) -> tuple[Float32[Tensor, "patches 1176"], Int[Tensor, "3"]]:
    """Normalises frames and cuts them into patches, as Qwen2.5-VL's video processor does.

    Each row is one patch of two slices, channel slowest: 3 channels × 2 slices × 14 × 14 px. Rows
    run over slice pairs, then over 2 × 2 groups of patches, so that four rows in a row become one
    visual token. Runs on the device the frames are on.

    Returns:
        The patches, and the grid (slice pairs, patch rows, patch columns), int64.

    Raises:
        CtscribeError: ``E_FRAMES`` for an odd number of slices, or sides that are no multiple of
            28 px.
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


def speed_up_tower(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    """Switches the tower of this model to batched windows and a linear patch embedding."""
    AttentionInterface.register(_ATTENTION, _attend)
    tower = qwen.model.visual
    tower.config._attn_implementation = _ATTENTION
    tower.patch_embed.__class__ = _LinearPatchEmbed


@final
class _LinearPatchEmbed(Qwen2_5_VisionPatchEmbed):  # type: ignore[misc]  # untyped in the library
    """The library's patch embedding with its convolution written as a matrix product."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)
        return linear(hidden_states.to(weight.dtype), weight)


def _attend(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 heads tokens width"],
    value: Float[Tensor, "1 heads tokens width"],
    attention_mask: None,
    *,
    cu_seq_lens_q: Int[Tensor, "boundaries"],
    scaling: float,
    **_: object,
) -> tuple[Float[Tensor, "1 tokens heads width"], None]:
    """Attention inside each of the segments that ``cu_seq_lens_q`` bounds."""
    lengths = cu_seq_lens_q.diff()
    if bool((lengths == lengths[0]).all()):
        return _attend_equal(query, key, value, int(lengths[0]), scaling)[None], None
    output = torch.empty_like(query.transpose(1, 2))
    for length in sorted(set(lengths.tolist())):
        starts = cu_seq_lens_q[:-1][lengths == length].long()
        rows = (starts[:, None] + torch.arange(length, device=starts.device)).flatten()
        output[0, rows] = _attend_equal(
            query[:, :, rows], key[:, :, rows], value[:, :, rows], length, scaling
        )
    return output, None


def _attend_equal(
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 heads tokens width"],
    value: Float[Tensor, "1 heads tokens width"],
    length: int,
    scaling: float,
) -> Float[Tensor, "tokens heads width"]:
    """The same where all segments have one length, as a batch."""
    heads, tokens, width = query.shape[1:]
    query, key, value = (
        t.reshape(heads, tokens // length, length, width).transpose(0, 1).contiguous()
        for t in (query, key, value)
    )
    attended = scaled_dot_product_attention(query, key, value, scale=scaling)
    return attended.transpose(1, 2).flatten(0, 1)
