"""LoRA adapters, added to a model without wrapping it, and their format on disk.

Adapters are stored beside the base weights, unmerged and in float32: merged into bfloat16 weights,
about half of such a small update would be lost to rounding. Only `publish` merges them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.model.families import backbone_of

ADAPTERS, ADAPTER_CONFIG = "adapters.safetensors", "adapters.json"
"""Files beside the base weights: the adapters' tensors and settings, with PEFT's keys."""


def add_adapters(
    qwen: PreTrainedModel, *, r: int, alpha: int, part: Literal["language", "tower"] = "language"
) -> None:
    """Freezes the model and makes adapters on a part of it trainable, in place.

    They sit on every linear layer of the language model, or of the tower's blocks. New ones start
    as an update of zero; those of an earlier stage are trained further. The model keeps its class.

    Args:
        qwen: The model.
        r: Rank.
        alpha: ``lora_alpha`` of PEFT: the update is scaled by ``alpha / r``.
        part: Which layers.

    Raises:
        CtscribeError: ``E_RECIPE`` where existing adapters have another rank or ``alpha``.
    """
    backbone = backbone_of(qwen)
    linears = backbone.language_linears if part == "language" else backbone.tower_linears
    qwen.requires_grad_(False)
    if not _adapted_layers(qwen, linears):
        _inject(qwen, LoraConfig(r=r, lora_alpha=alpha, target_modules=linears, bias="none"))
    for layer in _adapted_layers(qwen, linears).values():
        found = _rank_and_alpha(layer)
        if found != (r, alpha):
            raise CtscribeError(
                "E_RECIPE",
                "model.lora_r and lora_alpha must be those of the adapters to go on with, "
                f"{found[0]} and {found[1]}, but are {r} and {alpha}",
            )
        for name, weight in layer.named_parameters():
            weight.requires_grad_(name.startswith("lora_"))


def restore_adapters(
    qwen: nn.Module, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Adds trained adapters to a model, in place, frozen.

    ``config`` comes from `adapter_config`, ``tensors`` from `adapter_state`.

    Raises:
        CtscribeError: ``E_WEIGHTS`` where they do not fit this model.
    """
    knobs = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "bias")
    _inject(qwen, LoraConfig(**{knob: config[knob] for knob in knobs}))
    places = {_peft_name(n): w for n, w in qwen.named_parameters() if ".lora_" in n}
    wrong = {name for name in places.keys() & tensors if places[name].shape != tensors[name].shape}
    if strange := sorted((places.keys() ^ tensors.keys()) | wrong):
        raise CtscribeError(
            "E_WEIGHTS",
            f"{ADAPTERS} must fit the layers that {ADAPTER_CONFIG} names, but {len(strange)} "
            f"tensors do not, such as {strange[0]}",
        )
    for name, weight in places.items():
        weight.data = tensors[name].to(weight.device)
        weight.requires_grad_(False)


def _inject(qwen: nn.Module, config: LoraConfig) -> None:
    inject_adapter_in_model(config, qwen)
    del qwen.peft_config  # peft would warn of it where further layers get adapters


@torch.no_grad()
def merge_adapters(qwen: nn.Module) -> None:
    """Merges adapters into the base weights, in place, in the base weights' dtype."""
    for name, layer in _adapted_layers(qwen).items():
        base = layer.get_base_layer()
        base.weight.copy_(base.weight.float() + layer.get_delta_weight("default").float())
        qwen.set_submodule(name, base)


def base_state(qwen: nn.Module) -> dict[str, Tensor]:
    """The state dict of the base weights, under the names they have without adapters."""
    return {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in qwen.state_dict().items()
        if ".lora_" not in name
    }


def adapter_state(qwen: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors under PEFT's keys; empty where the model has none."""
    return {
        _peft_name(name): tensor.detach()
        for name, tensor in qwen.state_dict().items()
        if ".lora_" in name
    }


def adapter_config(qwen: nn.Module) -> dict[str, Any]:
    """The adapters' settings, as PEFT reads them.

    ``target_modules`` lists full layer names: vLLM and SGLang need a list, and with last name parts
    alone it would match the vision tower too. Layers whose rank or alpha differs from the usual one
    are in ``rank_pattern`` and ``alpha_pattern``.
    """
    sizes = {
        name.removeprefix("model."): _rank_and_alpha(layer)
        for name, layer in _adapted_layers(qwen).items()
    }
    usual = Counter(sizes.values()).most_common(1)[0][0]
    others = {name: size for name, size in sizes.items() if size != usual}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": usual[0],
        "lora_alpha": usual[1],
        "rank_pattern": {name: size[0] for name, size in others.items()},
        "alpha_pattern": {name: size[1] for name, size in others.items()},
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(sizes),
        "inference_mode": True,
    }


def _adapted_layers(qwen: nn.Module, linears: str = ".*") -> dict[str, LoraLayer]:
    """The layers with adapters, by name; only those whose name matches ``linears``."""
    return {
        name: layer
        for name, layer in qwen.named_modules()
        if isinstance(layer, LoraLayer) and re.fullmatch(linears, name)
    }


def _rank_and_alpha(layer: LoraLayer) -> tuple[int, int]:
    return layer.r["default"], layer.lora_alpha["default"]


def _peft_name(name: str) -> str:
    return f"base_model.model.{name.replace('.default', '')}"
