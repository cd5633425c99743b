"""The vision tower (ViT): frames in, visual tokens out, in few and large operations.

Without a flash kernel, transformers computes attention window by window in a Python loop: 3,520
calls for one volume of 504 × 504 in Qwen2.5-VL. Here windows of equal size are one batch. Its patch
embedding is a 3D convolution whose stride equals its kernel. Here it is the same matrix product as
a linear layer. Names, weights and results stay the same, on any device.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import final

import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.backbone import MERGE, Backbone, override
from ctscribe.learn.model.families import backbone_of
from ctscribe.learn.model.projector import projector_of

# "flash" in the name makes the tower hand over all tokens at once, with their boundaries
_ATTENTION = "ctscribe_flash_batched_windows"


def encode_frames(
    qwen: PreTrainedModel,
    frames: Sequence[UInt8[Tensor, "_ _ _ 3"]],
    *,
    merged: bool = True,
) -> Float[Tensor, "visual_tokens width"]:
    """Visual tokens of several volumes, concatenated, in the model's dtype.

    The tower never mixes slice pairs, so a pair's tokens depend on that pair alone. Volumes may
    differ in size. Where the language model reads several levels of the tower (Qwen3-VL), a token's
    levels stand side by side along ``width``.

    With ``merged=False`` the tower stops before its mergers. The result is the mergers' input, four
    patches side by side per visual token; `project_features` applies the mergers to it.
    """
    backbone, tower = backbone_of(qwen), qwen.model.visual
    parts = [patchify(volume.to(tower.device), backbone) for volume in frames]
    patches = torch.cat([part[0] for part in parts]).to(tower.dtype)
    grids = torch.stack([part[1] for part in parts]).to(tower.device)
    with ExitStack() as hooks:
        for merger in () if merged else backbone.mergers(tower):
            hooks.enter_context(merger.register_forward_hook(_return_input))
        return backbone.tower_features(tower(patches, grid_thw=grids))


def _return_input(
    _: nn.Module, args: tuple[Tensor], __: Tensor
) -> Float[Tensor, "visual_tokens width"]:
    return args[0].reshape(-1, MERGE**2 * args[0].shape[1])


def project_features(
    qwen: PreTrainedModel, tokens: Float[Tensor, "visual_tokens width"]
) -> Float[Tensor, "visual_tokens _"]:
    """Turns stored features into visual tokens.

    What that takes depends on the features. Another encoder's go through the model's projector.
    The tower's, stored before its mergers, go through the mergers. The tower's visual tokens are
    returned as they are.
    """
    if (projector := projector_of(qwen)) is not None:
        projected: Tensor = projector(tokens)
        return projected.to(qwen.lm_head.weight.dtype)
    tower = qwen.model.visual
    mergers = backbone_of(qwen).mergers(tower)
    merger_width = MERGE**2 * tower.config.hidden_size
    are_unmerged = tokens.shape[1] == len(mergers) * merger_width
    if not are_unmerged or merger_width == tower.config.out_hidden_size:
        return tokens
    levels = zip(mergers, torch.split(tokens, merger_width, dim=1), strict=True)
    return torch.cat(
        [merger(level.reshape(MERGE**2 * len(tokens), -1)) for merger, level in levels], 1
    )


def patchify(
    frames: UInt8[Tensor, "slices height width 3"], backbone: Backbone
) -> tuple[Float32[Tensor, "patches _"], Int[Tensor, "3"]]:
    """Normalises frames and cuts them into patches, as the family's video processor does.

    Each row of the result is one patch of two slices, flattened from (3 channels, 2 slices, rows,
    columns). The rows go through the slice pairs, and in each through 2 × 2 groups of patches, so
    that four consecutive rows become one visual token. Runs on the frames' device.

    Returns:
        The patches, and the grid (slice pairs, patch rows, patch columns), int64.

    Raises:
        CtscribeError: ``E_FRAMES`` for an odd number of slices, or sides that are no multiple of
            the side of a visual token.
    """
    slices, height, width, _ = frames.shape
    patch = backbone.patch_px
    if slices % 2 or height % backbone.token_px or width % backbone.token_px:
        raise CtscribeError(
            "E_FRAMES",
            f"frames must come in pairs with sides a multiple of {backbone.token_px} px, but there "
            f"are {slices} of {height} × {width}",
        )
    mean = torch.tensor(backbone.pixel_mean, device=frames.device) * 255
    std = torch.tensor(backbone.pixel_std, device=frames.device) * 255
    grid = (slices // 2, height // patch, width // patch)
    pixels = ((frames.float() - mean) / std).reshape(
        grid[0], 2, grid[1] // MERGE, MERGE, patch, grid[2] // MERGE, MERGE, patch, 3
    )
    patches = pixels.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(grid[0] * grid[1] * grid[2], -1)
    return patches, torch.tensor(grid)


def speed_up_tower(qwen: PreTrainedModel) -> None:
    """Lets a model's tower use batched windows and a linear patch embedding, in place."""
    AttentionInterface.register(_ATTENTION, _attend)
    tower = qwen.model.visual
    tower.config._attn_implementation = _ATTENTION
    override(_LinearPatchEmbed, tower.patch_embed)


@final
class _LinearPatchEmbed(nn.Module):
    """Overrides the library's patch embedding: its convolution as a matrix product."""

    proj: nn.Conv3d

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)
        return linear(hidden_states.to(weight.dtype), weight, self.proj.bias)


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
    """Attention inside each window; ``cu_seq_lens_q`` are the windows' boundaries, from 0."""
    lengths = cu_seq_lens_q.diff()
    if bool((lengths == lengths[0]).all()):
        return _attend_batched(query, key, value, int(lengths[0]), scaling)[None], None
    output = torch.empty_like(query.transpose(1, 2))
    for length in sorted(set(lengths.tolist())):
        starts = cu_seq_lens_q[:-1][lengths == length].long()
        rows = (starts[:, None] + torch.arange(length, device=starts.device)).flatten()
        output[0, rows] = _attend_batched(
            query[:, :, rows], key[:, :, rows], value[:, :, rows], length, scaling
        )
    return output, None


def _attend_batched(
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 heads tokens width"],
    value: Float[Tensor, "1 heads tokens width"],
    length: int,
    scaling: float,
) -> Float[Tensor, "tokens heads width"]:
    """The same for windows of one ``length``, as a batch."""
    heads, tokens, width = query.shape[1:]
    query, key, value = (
        t.reshape(heads, tokens // length, length, width).transpose(0, 1).contiguous()
        for t in (query, key, value)
    )
    attended = scaled_dot_product_attention(query, key, value, scale=scaling)
    return attended.transpose(1, 2).flatten(0, 1)
