"""The module that is trained: which of its weights learn, how fast, and at what memory."""

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
EXPENSIVE = {
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.convolution.default),
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}
"""Matrix products and attention."""


@final
class ReportScorer(nn.Module):
    """Cross entropy of reports given volumes; the module that gradients are synchronised on.

    Its state dict holds the trainable weights alone, each once: the frozen ones are in the
    starting checkpoint, and a checkpoint that is written often should be small.
    """

    accepts_loss_kwargs = False
    """Read by the Trainer: it shall divide each micro-batch's mean by the accumulation steps."""
    _keys_to_ignore_on_save = None
    """Read by the Trainer where a checkpoint does not hold every weight."""

    def __init__(self, qwen: PreTrainedModel, positions: Positions) -> None:
        super().__init__()
        self.qwen = qwen
        # read by accelerate: what is gathered and given back as one where weights are sharded
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
        """Nats of every answer token of each study; of two branches as `losses_of_both`."""
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
    """Lets the asked-for weights learn, in place; finding queries do where they open the gate.

    The projector of another encoder always does.

    Weights that learn are kept in float32 whatever the activations are: an update of 2e-5 of a
    weight is lost in bfloat16's eight bits.
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
    """Peak of each part of the model."""
    return {
        "language": config.learning_rate,
        "merger": config.merger_learning_rate or config.learning_rate,
        "tower": config.tower_learning_rate or config.learning_rate,
    }


def set_rates(optimizer: Optimizer, model: nn.Module, rates: Mapping[Part, float]) -> None:
    """Splits the optimizer's groups so that each part has its rate; before the first update.

    Groups keep their other settings and their order. Of each, the language model's comes first:
    its rate is the one that is logged.
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


def recompute(qwen: PreTrainedModel, what: Literal["layers", "cheap"]) -> None:
    """Trades memory for time in training, in place; gradients stay the same.

    With ``layers`` a layer keeps its input alone and runs a second time (a third more operations).
    With ``cheap`` it also keeps the results of its matrix products and of its attention; norms,
    activations and products by element run a second time.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if what == "cheap":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    # earlier releases in the supported range know it by its older name alone
    name = "activation_checkpointing_enable"
    enable = getattr(qwen, name, None) or qwen.gradient_checkpointing_enable
    enable(options)
    if getattr(qwen, "_require_grads_hooks", None):
        # what is not re-entrant needs no gradient of the inputs, and asking for one would keep
        # the graph of a tower that does not learn and differentiate it
        qwen.disable_input_require_grads()


def _policy(_: object, operation: object, *__: object, **___: object) -> CheckpointPolicy:
    if operation in EXPENSIVE:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
