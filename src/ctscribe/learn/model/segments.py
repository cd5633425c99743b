"""Samples of any lengths end to end in one row, each attending to itself alone.

Nothing is spent on padding, and a report can no more see its neighbour than if it were alone: the
attention of one sample is computed from the queries, keys and values of that sample and no others.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ctscribe.learn.model.fast import LastLayer, tails

_NAME = "ctscribe_segments"


def run_in_segments(
    language_model: PreTrainedModel,
    embeds: Float[Tensor, "1 tokens hidden"],
    position_ids: Tensor,
    lengths: Sequence[int],
    wanted: Sequence[int],
) -> Float[Tensor, "1 wanted hidden"]:
    """Last hidden states of samples that lie end to end, as many of each as are wanted.

    Args:
        language_model: Qwen2.5-VL's; from now on it attends through this module, which without
            segments is PyTorch's attention as before.
        embeds: Of all samples, one after the other.
        position_ids: int64 [3, 1, tokens].
        lengths: Tokens of each sample; they add up to ``tokens``.
        wanted: Tokens at the end of each sample whose states are read.
    """
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    language_model.config._attn_implementation = _NAME
    states: Tensor = language_model(
        inputs_embeds=embeds,
        # given as a mapping, it is taken as it is: causal order and segments need no mask
        attention_mask=dict.fromkeys(set(language_model.config.layer_types)),
        position_ids=position_ids,
        use_cache=False,
        segments=tuple(lengths),
        wanted=tuple(wanted),
    ).last_hidden_state
    is_narrow = isinstance(language_model.layers[-1], LastLayer)
    return states if is_narrow else tails(states, lengths, wanted)


def _attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch groups seen width"],
    value: Float[Tensor, "batch groups seen width"],
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
        stacked = (_stack(t, len(segments)) for t in (query, key, value))
        parts.append(_causal(*stacked, scaling=scaling).transpose(1, 2).flatten(0, 1))
    else:
        split = (torch.split(t, list(segments), dim=2) for t in (query, key, value))
        for each in zip(*split, strict=True):
            parts.append(_causal(*each, scaling=scaling).transpose(1, 2)[0])
    return torch.cat(parts)[None], None


def _stack(
    tensor: Float[Tensor, "1 heads tokens width"], segments: int
) -> Float[Tensor, "segments heads length width"]:
    """Segments of equal length as a batch."""
    heads, tokens, width = tensor.shape[1:]
    return tensor[0].reshape(heads, segments, tokens // segments, width).transpose(0, 1)


def _causal(
    *states: Float[Tensor, "batch _ tokens width"], scaling: float
) -> Float[Tensor, "batch _ tokens width"]:
    query, key, value = states
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped
    )
