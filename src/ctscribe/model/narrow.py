"""The last decoder layer, computed where its result is read.

Behind it stands only the output layer, which reads answer positions alone. Those need the keys and
values of every token, but no other token needs a query, an output projection or an MLP there.
Names and weights stay the same, and so do the states that are left.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
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
