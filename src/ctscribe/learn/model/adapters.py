"""LoRA adapters on a model that stays its own class, and how they are written down.

They are stored beside the weights below them and put on again as they were trained, in float32: an
update is a small part of a weight, of which a sum rounded to bfloat16 keeps half. Only an export
merges them.
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
"""Beside the weights below: the adapters, and their settings, both as PEFT names them."""


def add_adapters(
    qwen: PreTrainedModel, *, r: int, alpha: int, part: Literal["language", "tower"] = "language"
) -> None:
    """Freezes the model and lets adapters of rank ``r`` on a part of it learn, in place.

    Adapters that an earlier stage left there go on learning; new ones change nothing yet. The
    model stays its own class, so everything that reads it goes on working. ``alpha`` is their scale
    in units of rank; they sit on every linear layer of the language model or of the tower's blocks.

    Raises:
        CtscribeError: ``E_RECIPE`` where the earlier ones are of another rank or scale.
    """
    backbone = backbone_of(qwen)
    linears = backbone.language_linears if part == "language" else backbone.tower_linears
    qwen.requires_grad_(False)
    if not _on(qwen, linears):
        _put_on(qwen, LoraConfig(r=r, lora_alpha=alpha, target_modules=linears, bias="none"))
    for layer in _on(qwen, linears).values():
        found = _size(layer)
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
    """Puts adapters on as they were trained, in place; the counterpart of `adapter_state`.

    ``config`` is that of `adapter_config`.

    Raises:
        CtscribeError: ``E_WEIGHTS`` where they are not those of this model.
    """
    knobs = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "bias")
    _put_on(qwen, LoraConfig(**{knob: config[knob] for knob in knobs}))
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


def _put_on(qwen: nn.Module, config: LoraConfig) -> None:
    inject_adapter_in_model(config, qwen)
    del qwen.peft_config  # peft would warn of it where further layers get adapters


@torch.no_grad()
def merge_adapters(qwen: nn.Module) -> None:
    """Makes adapters part of the weights below them, in place; sums are rounded to their type."""
    for name, layer in _on(qwen).items():
        below = layer.get_base_layer()
        below.weight.copy_(below.weight.float() + layer.get_delta_weight("default").float())
        qwen.set_submodule(name, below)


def weights_below(qwen: nn.Module) -> dict[str, Tensor]:
    """State dict as if there were no adapters."""
    return {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in qwen.state_dict().items()
        if ".lora_" not in name
    }


def adapter_state(qwen: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors under the keys PEFT writes; empty where the model has none."""
    return {
        _peft_name(name): tensor.detach()
        for name, tensor in qwen.state_dict().items()
        if ".lora_" in name
    }


def adapter_config(qwen: nn.Module) -> dict[str, Any]:
    """The adapters' settings as PEFT reads them.

    Layers are listed by name, not by a pattern: vLLM and SGLang want a list, and a list of last
    names alone would put adapters on the vision tower again. Those that differ from most in rank
    or scale are named with theirs.
    """
    sizes = {name.removeprefix("model."): _size(layer) for name, layer in _on(qwen).items()}
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


def _on(qwen: nn.Module, linears: str = ".*") -> dict[str, LoraLayer]:
    """The layers with adapters whose names fit a pattern."""
    return {
        name: layer
        for name, layer in qwen.named_modules()
        if isinstance(layer, LoraLayer) and re.fullmatch(linears, name)
    }


def _size(layer: LoraLayer) -> tuple[int, int]:
    return layer.r["default"], layer.lora_alpha["default"]


def _peft_name(name: str) -> str:
    return f"base_model.model.{name.replace('.default', '')}"
