"""What is trained: the model, asked for a report's cross entropy."""

from typing import Any, Literal, final

import torch
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.model.adapters import add_adapters
from ctscribe.model.qwen import AnswerLosses, answer_losses
from ctscribe.model.slice_attention import attached
from ctscribe.pairs.collate import Batch


@final
class ReportScorer(nn.Module):
    """Cross entropy of reports given volumes; the module that gradients are synchronised on.

    Its state dict holds the trainable weights alone, each once: the frozen ones are in the
    starting checkpoint, and a checkpoint that is written often should be small.

    Args:
        qwen: With the weights that shall learn requiring gradients.
        positions: Mode of `model.positions.position_ids`.
    """

    accepts_loss_kwargs = False
    """Read by the Trainer: it shall divide each micro-batch's mean by the accumulation steps."""
    _keys_to_ignore_on_save = None
    """Read by the Trainer where a checkpoint does not hold every weight."""
    _no_split_modules = ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock")
    """Read by accelerate: what is gathered and given back as one where weights are sharded."""

    def __init__(
        self, qwen: Qwen2_5_VLForConditionalGeneration, positions: Literal["index", "depth"]
    ) -> None:
        super().__init__()
        self.qwen = qwen
        self.positions: Literal["index", "depth"] = positions
        self.register_state_dict_post_hook(_keep_trainable)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_only_trainable)  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> AnswerLosses:
        """Nats of every answer token of each study."""
        return answer_losses(self.qwen, batch, self.positions)


def _keep_trainable(
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
) -> None:
    trainable = _trainable(module)
    for name in [*state]:
        if name.removeprefix(prefix) not in trainable:
            del state[name]


def _miss_only_trainable(module: nn.Module, keys: Any) -> None:  # noqa: ANN401 - torch's own
    trainable = _trainable(module)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name in trainable]


def _trainable(module: nn.Module) -> set[str]:
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def choose_trainable(
    qwen: Qwen2_5_VLForConditionalGeneration,
    *,
    tuning: Literal["full", "lora"],
    freeze_tower: bool,
    freeze_merger: bool,
    lora_r: int,
    lora_alpha: int,
) -> None:
    """Lets the asked-for weights learn, in place.

    Weights that learn are kept in float32 whatever the activations are: an update of 2e-5 of a
    weight is lost in bfloat16's eight bits.

    Args:
        qwen: The model.
        tuning: full: all weights; lora: adapters on the language model. Finding queries learn
            in both.
        freeze_tower: Whether the vision tower's blocks stay as they are.
        freeze_merger: Whether the layers between them and the language model do.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters, in units of rank.
    """
    if tuning == "lora":
        add_adapters(qwen, r=lora_r, alpha=lora_alpha)
    else:
        qwen.requires_grad_(True)
    qwen.model.visual.requires_grad_(not freeze_tower)
    qwen.model.visual.merger.requires_grad_(not freeze_merger)
    queries = attached(qwen)
    if queries is not None:
        queries.requires_grad_(True)
    for weight in qwen.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()
