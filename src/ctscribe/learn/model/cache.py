"""The key-value cache as plain tensors that can be selected, joined, and grown cheaply.

An attention layer caches the keys and values of every token. A recurrent layer (Qwen3.5's gated
DeltaNet) caches two states of fixed size instead: the last inputs of its convolution, and its
recurrent state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

_GROWTH = 128
"""Tokens of free space that an attention layer's buffers get whenever they are full."""


@final
@dataclass(frozen=True)
class LayerState:
    """What one decoder layer has cached for a batch of sequences."""

    tensors: tuple[Tensor, Tensor]
    """Keys and values [batch, heads, tokens, width], or a recurrent layer's two states."""
    is_attention: bool
    """Whether they are keys and values."""

    def select(self, rows: Int[Tensor, "chosen"]) -> "LayerState":
        """The state of some sequences of the batch, in this order."""
        first, second = self.tensors
        return LayerState((first[rows], second[rows]), self.is_attention)

    def concat(self, other: "LayerState") -> "LayerState":
        """Both batches as one. Keys and values of shorter sequences are padded on the left."""

        def join(own: Tensor, others: Tensor) -> Tensor:
            if self.is_attention:
                length = max(own.shape[2], others.shape[2])
                own, others = (pad(t, (0, 0, length - t.shape[2], 0)) for t in (own, others))
            return torch.cat([own, others])

        first, second = map(join, self.tensors, other.tensors)
        return LayerState((first, second), self.is_attention)


def layer_states(cache: DynamicCache) -> tuple[LayerState, ...]:
    """The state of every layer of a filled cache; its tensors are not copied."""
    return tuple(
        LayerState((layer.conv_states[0], layer.recurrent_states[0]), is_attention=False)
        if isinstance(layer, LinearAttentionLayer)
        else LayerState((layer.keys, layer.values), is_attention=True)
        for layer in cache.layers
    )


def cache_from(states: Sequence[LayerState]) -> DynamicCache:
    """A cache that continues from these states; the states themselves stay unchanged."""
    cache = DynamicCache()
    cache.layers = [
        _PreallocatedLayer(*state.tensors) if state.is_attention else _recurrent(*state.tensors)
        for state in states
    ]
    return cache


def _recurrent(conv_state: Tensor, recurrent_state: Tensor) -> LinearAttentionLayer:
    layer = LinearAttentionLayer()
    layer.update_conv_state(conv_state)
    layer.update_recurrent_state(recurrent_state)
    return layer


@final
class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # untyped in the library
    """Keys and values in buffers with free space, so that a new token copies only itself.

    The library's `DynamicLayer` copies all earlier tokens at every step.
    """

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, ...]

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers = (keys, values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Appends new keys and values; returns all of them, as views into the buffers."""
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        if stop > self._buffers[0].shape[2]:
            self._buffers = tuple(
                pad(filled, (0, 0, 0, stop + _GROWTH - start))
                for filled in (self.keys, self.values)
            )
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:stop] = new
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self._buffers)
        return self.keys, self.values
