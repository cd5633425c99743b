"""What the backward pass computes again instead of keeping: everything, or only what is cheap."""

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import Qwen2_5_VLForConditionalGeneration

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
