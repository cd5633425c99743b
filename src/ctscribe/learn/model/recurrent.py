"""Recurrent decoder layers (gated DeltaNets), which would mix packed samples.

Such a layer carries its state from token to token, and no attention mask stops it at the end of a
sample. So it is run on one sample at a time. The library's own argument for sample boundaries is
understood by some of its kernels only, and not by the one for CPUs.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctscribe.learn.model.backbone import override


def isolate_samples(language_model: PreTrainedModel) -> None:
    """Lets recurrent layers run sample by sample where ``packed_lengths`` are given, in place."""
    for layer in language_model.layers:
        if hasattr(layer, "linear_attn"):
            override(_SampleBySample, layer.linear_attn)


@final
class _SampleBySample(nn.Module):
    """Overrides the library's recurrent layer: each packed sample starts from an empty state."""

    def forward(
        self,
        hidden_states: Float[Tensor, "batch tokens hidden"],
        *,
        packed_lengths: Sequence[int] | None = None,
        keep_last: object = None,
        prefixes: object = None,
        **others: Any,  # noqa: ANN401 - what the library passes on
    ) -> Float[Tensor, "batch tokens hidden"]:
        """``packed_lengths`` are the samples' tokens; the next two concern attention layers."""
        run: Callable[..., Tensor] = super().forward
        if packed_lengths is None:
            return run(hidden_states, **others)
        if len(set(packed_lengths)) == 1:  # of equal length, as a batch
            stacked = hidden_states.reshape(len(packed_lengths), packed_lengths[0], -1)
            return run(stacked, **others).reshape(hidden_states.shape)
        parts = torch.split(hidden_states, list(packed_lengths), dim=1)
        return torch.cat([run(part, **others) for part in parts], dim=1)
