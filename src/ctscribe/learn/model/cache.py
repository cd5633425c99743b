"""What a decoder remembers of what it has read, and how that grows while it writes.

A layer that attends remembers keys and values of every token; a recurrent one remembers two states
that keep their size, the last inputs of its convolution and the sum of what it read.
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

_ROOM = 128
"""Tokens by which a cache grows at a time."""


@final
@dataclass(frozen=True)
class Memory:
    """One layer's, of several texts: one row each."""

    states: tuple[Tensor, Tensor]
    """Keys and values [rows, heads, tokens, width], or the two states of a recurrent layer."""
    grows: bool
    """Whether they are keys and values."""

    def take(self, rows: Int[Tensor, "chosen"]) -> "Memory":
        """That of some rows, in this order."""
        first, second = self.states
        return Memory((first[rows], second[rows]), self.grows)

    def above(self, other: "Memory") -> "Memory":
        """Both as rows of one; shorter texts are padded on the left."""
        pairs = zip(self.states, other.states, strict=True)
        if not self.grows:
            first, second = (torch.cat(pair) for pair in pairs)
            return Memory((first, second), grows=False)
        length = max(self.states[0].shape[2], other.states[0].shape[2])
        first, second = (
            torch.cat([pad(each, (0, 0, length - each.shape[2], 0)) for each in pair])
            for pair in pairs
        )
        return Memory((first, second), grows=True)


def memories_of(cache: DynamicCache) -> tuple[Memory, ...]:
    """One per layer."""
    return tuple(
        Memory((layer.conv_states[0], layer.recurrent_states[0]), grows=False)
        if isinstance(layer, LinearAttentionLayer)
        else Memory((layer.keys, layer.values), grows=True)
        for layer in cache.layers
    )


def cache_of(memories: Sequence[Memory]) -> DynamicCache:
    """A cache that reads on from there; what it is made of stays as it is."""
    cache = DynamicCache()
    cache.layers = [
        _Roomy(*memory.states) if memory.grows else _recurrent(*memory.states)
        for memory in memories
    ]
    return cache


def _recurrent(inputs: Tensor, total: Tensor) -> LinearAttentionLayer:
    layer = LinearAttentionLayer()
    layer.update_conv_state(inputs)
    layer.update_recurrent_state(total)
    return layer


@final
class _Roomy(DynamicLayer):  # type: ignore[misc]  # untyped in the library
    """Keys and values with room for more: a new token is copied alone and not with all before."""

    keys: Tensor
    values: Tensor
    _rooms: tuple[Tensor, ...]

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._rooms = (keys, values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Puts what is new behind what is there; returns all."""
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        if stop > self._rooms[0].shape[2]:
            self._rooms = tuple(
                pad(held, (0, 0, 0, stop + _ROOM - start)) for held in (self.keys, self.values)
            )
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start:stop] = new
        self.keys, self.values = (room[:, :, :stop] for room in self._rooms)
        return self.keys, self.values
