"""Recurrent decoder layers, for which samples that lie end to end are one long text.

Such a layer carries its memory on from token to token and knows no mask that would stop it. So each
sample is given to it alone. The library's own marks of where samples begin are read by some kernels
only, and not by the one for CPUs.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctscribe.learn.model.backbone import put_in_front


def isolate(language_model: PreTrainedModel) -> None:
    """Lets recurrent layers read one segment at a time where ``segments`` are given, in place."""
    for layer in language_model.layers:
        if hasattr(layer, "linear_attn"):
            put_in_front(_Isolated, layer.linear_attn)


@final
class _Isolated(nn.Module):
    """Before the library's recurrent layer: the same for each of the segments in turn."""

    def forward(
        self,
        hidden_states: Float[Tensor, "batch tokens hidden"],
        *,
        segments: Sequence[int] | None = None,
        wanted: object = None,
        prompts: object = None,
        **others: Any,  # noqa: ANN401 - what the library passes on
    ) -> Float[Tensor, "batch tokens hidden"]:
        """``segments`` are lengths of texts in one row; attention alone reads the next two."""
        read: Callable[..., Tensor] = super().forward
        if segments is None:
            return read(hidden_states, **others)
        if len(set(segments)) == 1:  # of equal length, as a batch
            stacked = hidden_states.reshape(len(segments), segments[0], -1)
            return read(stacked, **others).reshape(hidden_states.shape)
        parts = torch.split(hidden_states, list(segments), dim=1)
        return torch.cat([read(part, **others) for part in parts], dim=1)
