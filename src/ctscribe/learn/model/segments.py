"""Samples of any lengths end to end in one row, each attending to itself alone.

Nothing is spent on padding, and a report can no more see its neighbour than if it were alone: the
attention of one sample is computed from the queries, keys and values of that sample and no others.
The last layer computes only the states that somebody reads.

A prompt sees nothing of the text behind it. So a second text behind the same prompt can be computed
alone, from what the layers made of the prompt when it was read for the first text.
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
from ctscribe.learn.model.backbone import put_in_front
from ctscribe.learn.model.recurrent import isolate

_ATTENTION = "ctscribe_segments"
KeysValues = tuple[Float[Tensor, "1 groups _ width"], Float[Tensor, "1 groups _ width"]]
"""Of one segment in one layer, keys turned by their places."""


@runtime_checkable
class Prompts(Protocol):
    """What a pass over segments does with what stands before the states that are read."""

    def visible(
        self, layer: int, each: list[KeysValues], wanted: Sequence[int]
    ) -> list[KeysValues]:
        """Keys and values that each segment's queries see in a layer, from the segment's own."""


@final
class KeptPrompts:
    """Keeps of each segment, layer by layer, what stands before the states that are read.

    It stays in the graph: gradients of other texts behind a prompt reach it.
    """

    def __init__(self) -> None:
        self.layers: dict[int, list[KeysValues]] = {}
        """Layer → of each segment, without its last ``wanted`` tokens."""

    def visible(
        self, layer: int, each: list[KeysValues], wanted: Sequence[int]
    ) -> list[KeysValues]:
        """The own ones; when a layer is computed again for its gradient nothing is kept anew."""
        if layer not in self.layers:
            self.layers[layer] = [
                (key[:, :, : key.shape[2] - num], value[:, :, : key.shape[2] - num])
                for (key, value), num in zip(each, wanted, strict=True)
            ]
        return each


@final
class ReadPrompts:
    """Puts kept prompts before segments that are texts alone.

    ``rows`` are, for each segment, the segment whose prompt was kept; None where it has its own.
    """

    def __init__(self, kept: KeptPrompts, rows: Sequence[int | None]) -> None:
        self._kept, self.rows = kept, rows

    def visible(
        self, layer: int, each: list[KeysValues], wanted: Sequence[int]
    ) -> list[KeysValues]:
        """Keys and values of the prompt, then the segment's own."""
        kept = self._kept.layers[layer]
        return [
            own
            if row is None
            else (torch.cat([kept[row][0], own[0]], 2), torch.cat([kept[row][1], own[1]], 2))
            for own, row in zip(each, self.rows, strict=True)
        ]


def run_in_segments(
    language_model: PreTrainedModel,
    inputs: Mapping[str, Any],
    position_ids: Int[Tensor, "3 1 tokens"],
    lengths: Sequence[int],
    wanted: Sequence[int],
    prompts: Prompts | None = None,
) -> Float[Tensor, "1 wanted hidden"]:
    """Last hidden states of samples that lie end to end, as many of each as are wanted.

    From now on the language model attends through this module, which without segments is
    PyTorch's attention as before. ``inputs`` are `language_inputs` of one row, ``lengths`` are the
    samples' tokens and add up to ``tokens``; ``wanted`` are those at the end of each sample whose
    states are read; ``prompts`` keeps what other texts can be read behind, or puts it before these.
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
        prompts=prompts,
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


@contextmanager
def keeping_inputs(language_model: PreTrainedModel) -> Iterator[None]:
    """In here a layer keeps its input alone, and runs again where its gradient is asked for.

    Whatever else was to be computed again holds outside.
    """
    names = ("gradient_checkpointing", "_gradient_checkpointing_func")
    again = (True, partial(checkpoint, use_reentrant=False))
    before = [[getattr(layer, name, None) for name in names] for layer in language_model.layers]
    try:
        for layer in language_model.layers:
            layer.__dict__.update(zip(names, again, strict=True))
        yield
    finally:
        for layer, values in zip(language_model.layers, before, strict=True):
            layer.__dict__.update(zip(names, values, strict=True))


def require_attention(qwen: PreTrainedModel) -> None:
    """Checks that every layer of a model finds all it knows of a prompt in keys and values.

    Raises:
        CtscribeError: ``E_RECIPE``.
    """
    # who names no types has one alone
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
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    attention_mask: Tensor | None,
    *,
    segments: tuple[int, ...] | None = None,
    wanted: tuple[int, ...] = (),
    prompts: Prompts | None = None,
    scaling: float,
    **others: object,
) -> tuple[Float[Tensor, "batch tokens heads width"], None]:
    if segments is None:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return attended
    queries, each = torch.split(query, list(segments), dim=2), _each(key, value, segments)
    if prompts is not None:
        each = prompts.visible(module.layer_idx, each, wanted)
    if len(set(segments)) == 1 and not isinstance(prompts, ReadPrompts):
        stacked = (  # segments of equal length, as a batch
            t[0].reshape(t.shape[1], len(segments), -1, t.shape[3]).transpose(0, 1)
            for t in (query, key, value)
        )
        return _causal(*stacked, scaling=scaling).transpose(1, 2).flatten(0, 1)[None], None
    parts = [_causal(q, *seen, scaling=scaling) for q, seen in zip(queries, each, strict=True)]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _each(
    key: Float[Tensor, "1 groups tokens width"],
    value: Float[Tensor, "1 groups tokens width"],
    segments: Sequence[int],
) -> list[KeysValues]:
    split = (torch.split(states, list(segments), dim=2) for states in (key, value))
    return [*zip(*split, strict=True)]


def _causal(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch groups keys width"],
    value: Float[Tensor, "batch groups keys width"],
    *,
    scaling: float,
) -> Float[Tensor, "batch heads queries width"]:
    """Attention of the last tokens among as many or more; the very last sees all."""
    num, total, groups = query.shape[2], key.shape[2], key.shape[1]
    if num == total:
        is_grouped = query.shape[1] != groups
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=is_grouped
        )
    seen = torch.ones(num, total, dtype=torch.bool, device=query.device).tril(total - num)
    # a mask leaves no kernel that groups heads itself
    key, value = (t.repeat_interleave(query.shape[1] // groups, dim=1) for t in (key, value))
    return scaled_dot_product_attention(query, key, value, seen, scale=scaling)


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
        prompts: Prompts | None = None,
        **others: Any,  # noqa: ANN401 - what the library passes on
    ) -> Float[Tensor, "batch _ hidden"]:
        """States of the tokens that are read; of all where nobody says which those are."""
        if segments is None or wanted is None:
            all_states: Tensor = super().forward(hidden_states, segments=segments, **others)
            return all_states
        places = others["position_embeddings"]
        attended = self._attend(hidden_states, places, segments, wanted, prompts)
        states = _tails(hidden_states, segments, wanted) + attended
        read: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return read

    def _attend(
        self,
        hidden_states: Float[Tensor, "1 tokens hidden"],
        position_embeddings: tuple[Tensor, Tensor],
        segments: tuple[int, ...],
        wanted: tuple[int, ...],
        prompts: Prompts | None,
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
        queries, each = torch.split(query, list(wanted), dim=2), _each(key, value, segments)
        if prompts is not None:
            each = prompts.visible(attention.layer_idx, each, wanted)
        parts = [
            _causal(q, *seen, scaling=attention.scaling)
            for q, seen in zip(queries, each, strict=True)
        ]
        mixed = torch.cat(parts, dim=2).transpose(1, 2)
        for opened in gate:
            mixed = mixed * opened.sigmoid()
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
