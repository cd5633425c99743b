"""Sequence packing: samples of any lengths concatenated into one row, without padding.

Attention is computed sample by sample, from that sample's queries, keys and values alone, so no
report can see its neighbour. Because only answer tokens have a loss, the last decoder layer
computes only the hidden states that are read (``keep_last``, as `logits_to_keep` in transformers).

A prompt cannot see the text behind it. Where two reports stand behind the same prompt, the prompt
therefore goes through the model once: its keys and values are stored, and the second report attends
to them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.backbone import override
from ctscribe.learn.model.recurrent import isolate_samples

_ATTENTION = "ctscribe_packed"
KeysValues = tuple[Float[Tensor, "1 kv_heads _ width"], Float[Tensor, "1 kv_heads _ width"]]
"""One sample's in one layer; rotary position embedding is already applied to the keys."""


@runtime_checkable
class Prefixes(Protocol):
    """Stores the keys and values of prompts in a pass, or reuses those stored by another."""

    def extend(
        self, layer: int, own: list[KeysValues], keep_last: Sequence[int]
    ) -> list[KeysValues]:
        """Keys and values that each sample attends to in a layer, given the sample's ``own``."""


@final
class StoredPrefixes:
    """Stores each sample's keys and values, without those of its last ``keep_last`` tokens.

    They stay in the autograd graph, so gradients of samples that reuse them reach the prompt.
    """

    def __init__(self) -> None:
        self.layers: dict[int, list[KeysValues]] = {}
        """By layer, one entry per sample."""

    def extend(
        self, layer: int, own: list[KeysValues], keep_last: Sequence[int]
    ) -> list[KeysValues]:
        """Returns ``own``. A layer that is recomputed for its gradient is not stored again."""
        if layer not in self.layers:
            self.layers[layer] = [
                (key[:, :, : key.shape[2] - num], value[:, :, : key.shape[2] - num])
                for (key, value), num in zip(own, keep_last, strict=True)
            ]
        return own


@final
class ReusedPrefixes:
    """Puts stored prefixes before samples that come without their prompt.

    ``rows`` holds, for each sample, the number of the sample that its prefix was stored of; None
    where it comes with its own prompt.
    """

    def __init__(self, stored: StoredPrefixes, rows: Sequence[int | None]) -> None:
        self._stored, self.rows = stored, rows

    def extend(
        self, layer: int, own: list[KeysValues], keep_last: Sequence[int]
    ) -> list[KeysValues]:
        """Keys and values of the prefix, then the sample's own."""
        stored = self._stored.layers[layer]
        return [
            each
            if row is None
            else (torch.cat([stored[row][0], each[0]], 2), torch.cat([stored[row][1], each[1]], 2))
            for each, row in zip(own, self.rows, strict=True)
        ]


def run_packed(
    language_model: PreTrainedModel,
    inputs: Mapping[str, Any],
    position_ids: Int[Tensor, "3 1 tokens"],
    lengths: Sequence[int],
    keep_last: Sequence[int],
    prefixes: Prefixes | None = None,
) -> Float[Tensor, "1 kept hidden"]:
    """Last hidden states of packed samples: of each sample, those of its last tokens.

    Installs this module's attention in the language model. For calls without ``packed_lengths``,
    such as generation, it is PyTorch's attention as before.

    Args:
        language_model: The decoder.
        inputs: `language_inputs` of the packed row.
        position_ids: Of the packed row.
        lengths: Tokens of each sample; they add up to ``tokens``.
        keep_last: How many states of each sample are returned, counted from its end.
        prefixes: Stores the samples' prompts, or gives them prompts stored before.
    """
    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    language_model.config._attn_implementation = _ATTENTION
    isolate_samples(language_model)
    states: Tensor = language_model(
        **inputs,
        attention_mask=None,
        position_ids=position_ids,
        use_cache=False,
        packed_lengths=tuple(lengths),
        keep_last=tuple(keep_last),
        prefixes=prefixes,
    ).last_hidden_state
    is_trimmed = isinstance(language_model.layers[-1], _LastLayer)
    return states if is_trimmed else _last_tokens(states, lengths, keep_last)


def trim_last_layer(qwen: PreTrainedModel) -> None:
    """Lets the last decoder layer skip tokens whose states nobody reads, in place.

    It does so only in `run_packed`, which says which states are read; generation and every other
    caller get all states. A recurrent last layer stays as it is.
    """
    last = qwen.model.language_model.layers[-1]
    if hasattr(last, "self_attn"):
        override(_LastLayer, last)


@contextmanager
def checkpointing_every_layer(language_model: PreTrainedModel) -> Iterator[None]:
    """Inside, each layer keeps only its input and is recomputed in the backward pass.

    This is activation checkpointing; afterwards the layers' former setting holds again.
    """
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    on = (True, partial(checkpoint, use_reentrant=False))
    before = [[getattr(layer, name, None) for name in names] for layer in language_model.layers]
    try:
        for layer in language_model.layers:
            layer.__dict__.update(zip(names, on, strict=True))
        yield
    finally:
        for layer, values in zip(language_model.layers, before, strict=True):
            layer.__dict__.update(zip(names, values, strict=True))


def require_full_attention(qwen: PreTrainedModel) -> None:
    """Checks that all layers attend: a recurrent layer has no keys and values to share.

    Raises:
        CtscribeError: ``E_RECIPE``.
    """
    # configurations without layer_types have full attention in all layers
    others = {*getattr(qwen.config.text_config, "layer_types", ())} - {"full_attention"}
    if others:
        raise CtscribeError(
            "E_RECIPE",
            "pairs.mutual reads a prompt once for two reports, which needs a model whose layers "
            f"all have full_attention, but this one has {', '.join(sorted(others))} too",
        )


def _attend(
    module: Any,  # noqa: ANN401 - the family's own attention
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch kv_heads keys width"],
    value: Float[Tensor, "batch kv_heads keys width"],
    attention_mask: Tensor | None,
    *,
    packed_lengths: tuple[int, ...] | None = None,
    keep_last: tuple[int, ...] = (),
    prefixes: Prefixes | None = None,
    scaling: float,
    **others: object,
) -> tuple[Float[Tensor, "batch tokens heads width"], None]:
    if packed_lengths is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return attended
    queries = torch.split(query, list(packed_lengths), dim=2)
    keys_values = _split_samples(key, value, packed_lengths)
    if prefixes is not None:
        keys_values = prefixes.extend(module.layer_idx, keys_values, keep_last)
    if len(set(packed_lengths)) == 1 and not isinstance(prefixes, ReusedPrefixes):
        stacked = (  # samples of equal length, as a batch
            t[0].reshape(t.shape[1], len(packed_lengths), -1, t.shape[3]).transpose(0, 1)
            for t in (query, key, value)
        )
        return _causal(*stacked, scaling=scaling).transpose(1, 2).flatten(0, 1)[None], None
    parts = [_causal(q, *kv, scaling=scaling) for q, kv in zip(queries, keys_values, strict=True)]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _split_samples(
    key: Float[Tensor, "1 kv_heads tokens width"],
    value: Float[Tensor, "1 kv_heads tokens width"],
    lengths: Sequence[int],
) -> list[KeysValues]:
    split = (torch.split(states, list(lengths), dim=2) for states in (key, value))
    return [*zip(*split, strict=True)]


def _causal(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch kv_heads keys width"],
    value: Float[Tensor, "batch kv_heads keys width"],
    *,
    scaling: float,
) -> Float[Tensor, "batch heads queries width"]:
    """Causal attention of the queries of a sequence's last tokens to all of its keys."""
    num, total, kv_heads = query.shape[2], key.shape[2], key.shape[1]
    if num == total:
        is_grouped = query.shape[1] != kv_heads
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=is_grouped
        )
    mask = torch.ones(num, total, dtype=torch.bool, device=query.device).tril(total - num)
    # with a mask no kernel supports grouped-query attention, so the heads are repeated
    key, value = (t.repeat_interleave(query.shape[1] // kv_heads, dim=1) for t in (key, value))
    return scaled_dot_product_attention(query, key, value, mask, scale=scaling)


class _LastLayer(nn.Module):
    """Overrides the library's decoder layer: only each sample's ``keep_last`` tokens are computed.

    Keys and values are still those of all tokens.
    """

    self_attn: Any
    mlp: Any
    input_layernorm: Any
    post_attention_layernorm: Any

    def forward(
        self,
        hidden_states: Float[Tensor, "batch tokens hidden"],
        *,
        packed_lengths: tuple[int, ...] | None = None,
        keep_last: tuple[int, ...] | None = None,
        prefixes: Prefixes | None = None,
        **others: Any,  # noqa: ANN401 - what the library passes on
    ) -> Float[Tensor, "batch _ hidden"]:
        """States of the last tokens of each sample; of all tokens where ``keep_last`` is None."""
        if packed_lengths is None or keep_last is None:
            states: Tensor = super().forward(hidden_states, packed_lengths=packed_lengths, **others)
            return states
        rotary = others["position_embeddings"]
        attended = self._attend(hidden_states, rotary, packed_lengths, keep_last, prefixes)
        states = _last_tokens(hidden_states, packed_lengths, keep_last) + attended
        output: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return output

    def _attend(
        self,
        hidden_states: Float[Tensor, "1 tokens hidden"],
        position_embeddings: tuple[Tensor, Tensor],
        lengths: tuple[int, ...],
        keep_last: tuple[int, ...],
        prefixes: Prefixes | None,
    ) -> Float[Tensor, "1 kept hidden"]:
        attention = self.self_attn
        normed = self.input_layernorm(hidden_states)
        kept = _last_tokens(normed, lengths, keep_last)
        heads = (attention.config.num_attention_heads, -1)
        # Qwen3.5's q_proj gives an output gate behind each head's query
        query, *gate = attention.q_proj(kept).unflatten(-1, heads).split(attention.head_dim, -1)
        key, value = (
            project(normed).unflatten(-1, (-1, attention.head_dim))
            for project in (attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        cos, sin = position_embeddings
        key = _apply_rotary(key.transpose(1, 2), cos, sin)
        kept_rotary = (_last_tokens(table, lengths, keep_last) for table in (cos, sin))
        query, value = _apply_rotary(query.transpose(1, 2), *kept_rotary), value.transpose(1, 2)
        queries = torch.split(query, list(keep_last), dim=2)
        keys_values = _split_samples(key, value, lengths)
        if prefixes is not None:
            keys_values = prefixes.extend(attention.layer_idx, keys_values, keep_last)
        parts = [
            _causal(q, *kv, scaling=attention.scaling)
            for q, kv in zip(queries, keys_values, strict=True)
        ]
        mixed = torch.cat(parts, dim=2).transpose(1, 2)
        for logits in gate:
            mixed = mixed * logits.sigmoid()
        projected: Tensor = attention.o_proj(mixed.flatten(2))
        return projected


def _apply_rotary(
    states: Float[Tensor, "1 heads tokens width"],
    cos: Float[Tensor, "1 tokens rotary_width"],
    sin: Float[Tensor, "1 tokens rotary_width"],
) -> Float[Tensor, "1 heads tokens width"]:
    """Rotary position embedding of queries or keys.

    Of a partial one (``partial_rotary_factor``) only the first ``rotary_width`` numbers of each
    head are rotated.
    """
    rotated, rest = states.tensor_split([cos.shape[-1]], dim=-1)
    first, second = rotated.chunk(2, dim=-1)
    rotated = rotated * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
    return torch.cat([rotated, rest], dim=-1)


def _last_tokens(
    states: Float[Tensor, "1 tokens *width"], lengths: Sequence[int], keep_last: Sequence[int]
) -> Float[Tensor, "1 kept *width"]:
    """The last ``keep_last`` states of each packed sample."""
    parts = torch.split(states, list(lengths), dim=1)
    ends = zip(parts, keep_last, strict=True)
    return torch.cat([part[:, part.shape[1] - num :] for part, num in ends], dim=1)
