"""Samples of any lengths end to end in one row, each attending to itself alone.

Nothing is spent on padding, and a report can no more see its neighbour than if it were alone: the
attention of one sample is computed from the queries, keys and values of that sample and no others.
The last layer computes only the states that somebody reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ctscribe.learn.model.backbone import put_in_front
from ctscribe.learn.model.recurrent import isolate

_ATTENTION = "ctscribe_segments"


def run_in_segments(
    language_model: PreTrainedModel,
    inputs: Mapping[str, Any],
    position_ids: Int[Tensor, "3 1 tokens"],
    lengths: Sequence[int],
    wanted: Sequence[int],
) -> Float[Tensor, "1 wanted hidden"]:
    """Last hidden states of samples that lie end to end, as many of each as are wanted.

    From now on the language model attends through this module, which without segments is
    PyTorch's attention as before. ``inputs`` are `language_inputs` of one row, ``lengths`` are the
    samples' tokens and add up to ``tokens``; ``wanted`` are those at the end of each sample whose
    states are read.
    """
    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    language_model.config._attn_implementation = _ATTENTION
    isolate(language_model)
    states: Tensor = language_model(
        **inputs,
        attention_mask=None,
        position_ids=position_ids,
        use_cache=False,
        segments=tuple(lengths),
        wanted=tuple(wanted),
    ).last_hidden_state
    is_narrow = isinstance(language_model.layers[-1], _LastLayer)
    return states if is_narrow else _tails(states, lengths, wanted)


def narrow(qwen: PreTrainedModel) -> None:
    """Lets the last layer of this model leave out tokens that nobody reads, in place.

    It does so only where it is told which tokens are read, as by `run_in_segments`; generation
    and every other caller get all of them. A recurrent last layer stays as it is.
    """
    last = qwen.model.language_model.layers[-1]
    if hasattr(last, "self_attn"):
        put_in_front(_LastLayer, last)


def _attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    attention_mask: Tensor | None,
    *,
    segments: tuple[int, ...] | None = None,
    scaling: float,
    **others: object,
) -> tuple[Float[Tensor, "batch tokens heads width"], None]:
    if segments is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return attended
    parts = []
    if len(set(segments)) == 1:
        stacked = (  # segments of equal length, as a batch
            t[0].reshape(t.shape[1], len(segments), -1, t.shape[3]).transpose(0, 1)
            for t in (query, key, value)
        )
        parts.append(_causal(*stacked, scaling=scaling).transpose(1, 2).flatten(0, 1))
    else:
        split = (torch.split(t, list(segments), dim=2) for t in (query, key, value))
        for each in zip(*split, strict=True):
            parts.append(_causal(*each, scaling=scaling).transpose(1, 2)[0])
    return torch.cat(parts)[None], None


def _causal(
    *states: Float[Tensor, "batch _ tokens width"], scaling: float
) -> Float[Tensor, "batch _ tokens width"]:
    query, key, value = states
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
    )


class _LastLayer(nn.Module):
    """Before the library's layer: the same for the last ``wanted`` tokens of each segment."""

    self_attn: Any
    mlp: Any
    input_layernorm: Any
    post_attention_layernorm: Any

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
        states = _tails(hidden_states, segments, wanted) + attended
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
        read = _tails(normed, segments, wanted)
        heads = (attention.config.num_attention_heads, -1)
        # behind each head's query there may be its gate
        query, *gate = attention.q_proj(read).unflatten(-1, heads).split(attention.head_dim, -1)
        key, value = (
            project(normed).unflatten(-1, (-1, attention.head_dim))
            for project in (attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        cos, sin = position_embeddings
        key = _rotated(key.transpose(1, 2), cos, sin)
        places = (_tails(table, segments, wanted) for table in (cos, sin))
        query, value = _rotated(query.transpose(1, 2), *places), value.transpose(1, 2)
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
        mixed = torch.cat(parts, dim=2).transpose(1, 2)
        for each in gate:
            mixed = mixed * each.sigmoid()
        projected: Tensor = attention.o_proj(mixed.flatten(2))
        return projected


def _rotated(
    states: Float[Tensor, "1 heads tokens width"],
    cos: Float[Tensor, "1 tokens turned"],
    sin: Float[Tensor, "1 tokens turned"],
) -> Float[Tensor, "1 heads tokens width"]:
    """Queries or keys turned by their places, or as much of each head as is turned at all."""
    turned, rest = states.tensor_split([cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
    return torch.cat([turned, rest], dim=-1)


def _tails(
    states: Float[Tensor, "1 tokens *width"], lengths: Sequence[int], wanted: Sequence[int]
) -> Float[Tensor, "1 wanted *width"]:
    """The last ``wanted`` states of each of the segments that lie end to end."""
    parts = torch.split(states, list(lengths), dim=1)
    ends = zip(parts, wanted, strict=True)
    return torch.cat([part[:, part.shape[1] - num :] for part, num in ends], dim=1)


def _causal_mask(wanted: int, tokens: int, device: torch.device) -> Bool[Tensor, "wanted tokens"]:
    """Which keys each of the last queries sees; the very last sees all."""
    every = torch.ones(wanted, tokens, dtype=torch.bool, device=device)
    return every.tril(diagonal=tokens - wanted)
