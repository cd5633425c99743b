"""The same vision tower in fewer, larger operations.

transformers loops over attention windows in Python unless a flash kernel is used, 3,520 calls for
one volume of 504 × 504, and cuts patches with a 3D convolution whose stride is its kernel. Windows
of equal size can be one batch, and such a convolution is one matrix product. Names, weights and
results stay the same, on any device.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import AttentionInterface, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLDecoderLayer,
    apply_rotary_pos_emb,
)


def narrow(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    """Lets the last layer of this model leave out tokens that nobody reads, in place.

    It does so only where it is told which tokens are read, as by
    `segments.run_in_segments`; generation and every other caller get all of them.
    """
    qwen.model.language_model.layers[-1].__class__ = LastLayer


def tails(
    states: Float[Tensor, "1 tokens *width"], lengths: Sequence[int], wanted: Sequence[int]
) -> Float[Tensor, "1 wanted *width"]:
    """The last ``wanted`` states of each of the segments that lie end to end."""
    parts = torch.split(states, list(lengths), dim=1)
    ends = zip(parts, wanted, strict=True)
    return torch.cat([part[:, part.shape[1] - num :] for part, num in ends], dim=1)


@final
class LastLayer(Qwen2_5_VLDecoderLayer):  # type: ignore[misc]  # untyped in the library
    """The library's layer, for the last ``wanted`` tokens of each segment."""

    def forward(
        self,
        hidden_states: Float[Tensor, "batch tokens hidden"],
        *,
        segments: tuple[int, ...] | None = None,
        wanted: tuple[int, ...] | None = None,
        **others: Any,  # noqa: ANN401 - what the library passes on
    ) -> Float[Tensor, "batch _ hidden"]:
        """States of the tokens that are read; of all where nobody says which those are."""
        if segments is None or wanted is None:
            all_states: Tensor = super().forward(hidden_states, segments=segments, **others)
            return all_states
        attended = self._attend(hidden_states, others["position_embeddings"], segments, wanted)
        states = tails(hidden_states, segments, wanted) + attended
        read: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return read

    def _attend(
        self,
        hidden_states: Float[Tensor, "1 tokens hidden"],
        position_embeddings: tuple[Tensor, Tensor],
        segments: tuple[int, ...],
        wanted: tuple[int, ...],
    ) -> Float[Tensor, "1 wanted hidden"]:
        attention = self.self_attn
        normed = self.input_layernorm(hidden_states)
        read = tails(normed, segments, wanted)
        key, value = (
            project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for project in (attention.k_proj, attention.v_proj)
        )
        query = attention.q_proj(read).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        cos, sin = position_embeddings
        _, key = apply_rotary_pos_emb(key, key, cos, sin)
        places = (tails(table, segments, wanted) for table in (cos, sin))
        query, _ = apply_rotary_pos_emb(query, query, *places)
        groups = attention.num_key_value_groups
        # a mask leaves no kernel that groups heads itself
        key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
        split = (
            torch.split(states, list(sizes), dim=2)
            for states, sizes in ((query, wanted), (key, segments), (value, segments))
        )
        parts = [
            scaled_dot_product_attention(
                q, k, v, _causal_mask(q.shape[2], k.shape[2], q.device), scale=attention.scaling
            )
            for q, k, v in zip(*split, strict=True)
        ]
        mixed = torch.cat(parts, dim=2).transpose(1, 2).flatten(2)
        projected: Tensor = attention.o_proj(mixed)
        return projected


def _causal_mask(wanted: int, tokens: int, device: torch.device) -> Bool[Tensor, "wanted tokens"]:
    """Which keys each of the last queries sees; the very last sees all."""
    seen = torch.ones(wanted, tokens, dtype=torch.bool, device=device)
    return seen.tril(diagonal=tokens - wanted)


_aten = torch.ops.aten
_EXPENSIVE = {
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.convolution.default),
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}
"""Matrix products and attention."""


def recompute(qwen: Qwen2_5_VLForConditionalGeneration, what: Literal["layers", "cheap"]) -> None:
    """Trades memory for time in training, in place; gradients stay the same.

    Args:
        qwen: The model.
        what: layers: a layer keeps its input alone and runs a second time (a third more
            operations). cheap: it also keeps the results of its matrix products and of its
            attention, and norms, activations and products by element run a second time.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "cheap":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    # earlier releases in the supported range know it by its older name alone
    name = "activation_checkpointing_enable"
    enable = getattr(qwen, name, None) or qwen.gradient_checkpointing_enable
    enable(options)


def _policy(_: object, operation: object, *__: object, **___: object) -> CheckpointPolicy:
    if operation in _EXPENSIVE:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


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
