"""LoRA adapters on a model that stays its own class, and how they are written down."""

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

LANGUAGE_LINEARS = (
    r".*language_model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)
"""Every linear layer of the language model; a plain list of names would also hit the tower."""
TOWER_LINEARS = r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"
"""Every linear layer of the tower's blocks."""

ADAPTERS, ADAPTER_CONFIG = "adapters.safetensors", "adapters.json"
"""Beside merged weights: the adapters apart, and their settings, both as PEFT names them."""


def add_adapters(qwen: nn.Module, *, r: int, alpha: int, linears: str = LANGUAGE_LINEARS) -> None:
    """Freezes the model and puts trainable adapters of rank ``r`` on some of its layers, in place.

    It stays its own class, so everything that reads it goes on working. ``alpha`` is their scale
    in units of rank, ``linears`` the pattern of the layers' names.
    """
    qwen.requires_grad_(False)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=linears, bias="none")
    inject_adapter_in_model(config, qwen)


def merged_state(qwen: nn.Module) -> dict[str, Tensor]:
    """State dict as if the adapters were part of the weights; the model itself is not touched."""
    state = {}
    adapted = {name: m for name, m in qwen.named_modules() if isinstance(m, LoraLayer)}
    for key, tensor in qwen.state_dict().items():
        if ".lora_" in key:
            continue
        owner, _, leaf = key.partition(".base_layer.")
        if leaf == "weight":
            delta = adapted[owner].get_delta_weight("default")
            tensor = (tensor.float() + delta.float()).to(tensor.dtype)
        state[f"{owner}.{leaf}" if leaf else key] = tensor.detach()
    return state


def adapter_state(qwen: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors under the keys PEFT writes; empty where the model has none."""
    return {
        f"base_model.model.{name.replace('.default', '')}": tensor.detach()
        for name, tensor in qwen.state_dict().items()
        if ".lora_" in name
    }


def adapter_config(qwen: nn.Module) -> dict[str, Any]:
    """The adapters' settings as PEFT reads them.

    Layers are listed by name, not by a pattern: vLLM and SGLang want a list, and a list of last
    names alone would put adapters on the vision tower again.
    """
    layers = {name: m for name, m in qwen.named_modules() if isinstance(m, LoraLayer)}
    some = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": some.r["default"],
        "lora_alpha": some.lora_alpha["default"],
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(name.removeprefix("model.") for name in layers),
        "inference_mode": True,
    }
