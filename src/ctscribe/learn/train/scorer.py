"""The module that is trained: forward pass, trainable weights, learning rates, checkpointing."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, final, overload

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from ctscribe.base.recipe import ModelConfig, TrainConfig
from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.backbone import Positions
from ctscribe.learn.model.families import backbone_of
from ctscribe.learn.model.finding_queries import finding_queries_of
from ctscribe.learn.model.projector import projector_of
from ctscribe.learn.model.qwen import AnswerLosses, answer_losses, losses_of_both
from ctscribe.learn.pairs.collate import Batch

Part = Literal["tower", "merger", "language"]
_aten = torch.ops.aten
SAVED_WHEN_CHEAP = {
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.convolution.default),
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}
"""Matrix products and attention, which are costly to recompute; see `enable_checkpointing`."""


@final
class ReportScorer(nn.Module):
    """The model whose forward pass gives losses, as DDP and FSDP need it.

    Its state dict holds only the trainable weights, so that the frequent checkpoints stay small;
    the frozen ones are in the starting checkpoint.
    """

    accepts_loss_kwargs = False
    """Read by the Trainer: each micro-batch's mean is divided by the accumulation steps."""
    _keys_to_ignore_on_save = None
    """The Trainer looks for it where a checkpoint lacks weights."""

    def __init__(self, qwen: PreTrainedModel, positions: Positions) -> None:
        super().__init__()
        self.qwen = qwen
        # read by accelerate: FSDP gathers and frees the weights of these modules as one
        self._no_split_modules = tuple(qwen._no_split_modules)
        self.positions: Positions = positions
        self.register_state_dict_post_hook(_keep_trainable)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_miss_only_trainable)  # type: ignore[no-untyped-call]

    @overload
    def forward(self, batch: Batch) -> AnswerLosses: ...

    @overload
    def forward(self, batch: Batch, negative: Batch) -> tuple[AnswerLosses, AnswerLosses]: ...

    def forward(
        self, batch: Batch, negative: Batch | None = None
    ) -> AnswerLosses | tuple[AnswerLosses, AnswerLosses]:
        """`answer_losses` of a batch; with ``negative`` `losses_of_both` of the two."""
        if negative is None:
            return answer_losses(self.qwen, batch, self.positions)
        return losses_of_both(self.qwen, batch, negative, self.positions)


def _keep_trainable(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]
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


def choose_trainable(qwen: PreTrainedModel, config: ModelConfig) -> None:
    """Sets which weights are trainable, in place, as the recipe says.

    Finding queries are trainable with ``model.slice_attention``, the projector of another encoder
    always. Trainable weights are float32 whatever the activations' dtype, because an update of 2e-5
    of a weight is lost in bfloat16's eight bits.
    """
    if config.tuning == "lora":
        add_adapters(qwen, r=config.lora_r, alpha=config.lora_alpha)
    else:
        qwen.requires_grad_(True)
    qwen.model.visual.requires_grad_(not config.freeze_tower)
    for merger in backbone_of(qwen).mergers(qwen.model.visual):
        merger.requires_grad_(not config.freeze_merger)
    queries = finding_queries_of(qwen)
    if queries is not None:
        queries.requires_grad_(config.slice_attention)
    projector = projector_of(qwen)
    if projector is not None:
        projector.requires_grad_(True)
    for weight in qwen.parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            weight.data = weight.data.float()


def learning_rates(config: TrainConfig) -> dict[Part, float]:
    """Peak learning rate of each part of the model."""
    return {
        "language": config.learning_rate,
        "merger": config.merger_learning_rate or config.learning_rate,
        "tower": config.tower_learning_rate or config.learning_rate,
    }


def set_learning_rates(optimizer: Optimizer, model: nn.Module, rates: Mapping[Part, float]) -> None:
    """Splits the optimizer's parameter groups by part of the model; before the first update.

    Groups keep their other settings and their order. In each, the language model comes first,
    because the Trainer logs the first group's rate.
    """
    parts = {id(weight): part_of(name) for name, weight in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for part in ("language", "merger", "tower"):
            weights = [weight for weight in group["params"] if parts[id(weight)] == part]
            if weights:
                groups.append({**group, "params": weights, "lr": rates[part]})
    optimizer.param_groups[:] = groups


def part_of(name: str) -> Part:
    """Which part of the model a weight belongs to, by its name in the model.

    An encoder's projector is the merger's counterpart.
    """
    dotted = f".{name}"
    if ".visual.merger." in dotted or ".encoder_projector." in dotted:
        return "merger"
    return "tower" if ".visual." in dotted else "language"


def enable_checkpointing(qwen: PreTrainedModel, what: Literal["layers", "cheap"]) -> None:
    """Turns activation checkpointing on, in place; gradients stay the same.

    ``layers`` saves only each layer's input and recomputes the layer (a third more operations).
    ``cheap`` also saves the outputs of `SAVED_WHEN_CHEAP` and recomputes the rest: norms,
    activation functions and elementwise products.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "cheap":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _cheap_policy)
    # earlier releases in the supported range know it by its older name alone
    name = "activation_checkpointing_enable"
    enable = getattr(qwen, name, None) or qwen.gradient_checkpointing_enable
    enable(options)
    if getattr(qwen, "_require_grads_hooks", None):
        # non-reentrant checkpointing needs no gradient of the inputs, and asking for one would
        # keep the graph of a frozen tower and differentiate it
        qwen.disable_input_require_grads()


def _cheap_policy(_: object, operation: object, *__: object, **___: object) -> CheckpointPolicy:
    if operation in SAVED_WHEN_CHEAP:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
