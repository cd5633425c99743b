"""The same vision tower in fewer, larger operations.

transformers loops over attention windows in Python unless a flash kernel is used, 3,520 calls for
one volume of 504 × 504, and cuts patches with a 3D convolution whose stride is its kernel. Windows
of equal size can be one batch, and such a convolution is one matrix product. Names, weights and
results stay the same, on any device.
"""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed

# "flash" in the name makes the tower hand over all tokens at once, with their boundaries
_NAME = "ctscribe_flash_batched_windows"


def speed_up_tower(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    """Switches the tower of this model to batched windows and a linear patch embedding."""
    AttentionInterface.register(_NAME, _attend)
    tower = qwen.model.visual
    tower.config._attn_implementation = _NAME
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
    heads, tokens, width = query.shape[1:]
    query, key, value = (
        t.reshape(heads, tokens // length, length, width).transpose(0, 1).contiguous()
        for t in (query, key, value)
    )
    attended = scaled_dot_product_attention(query, key, value, scale=scaling)
    return attended.transpose(1, 2).flatten(0, 1)
