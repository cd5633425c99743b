"""Adapters on the real 7B configuration, whose tower has layers of the same names."""

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.presets import build_config


def adapted(config: Qwen2_5_VLConfig, r: int) -> Qwen2_5_VLForConditionalGeneration:
    with torch.device("meta"):
        qwen = Qwen2_5_VLForConditionalGeneration(config)
    add_adapters(qwen, r=r, alpha=2 * r)
    return qwen


def check(qwen: Qwen2_5_VLForConditionalGeneration, r: int) -> None:
    layers = {name for name, module in qwen.named_modules() if isinstance(module, LoraLayer)}
    config = qwen.config.text_config
    assert len(layers) == 7 * config.num_hidden_layers
    assert all(name.startswith("model.language_model.layers.") for name in layers)
    assert not any("visual" in name for name in layers)
    learning = {name for name, weight in qwen.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name for name in learning)
    head_width = config.hidden_size // config.num_attention_heads
    keys = config.num_key_value_heads * head_width
    ends = (
        2 * 2 * config.hidden_size
        + 2 * (config.hidden_size + keys)
        + 3 * (config.hidden_size + config.intermediate_size)
    )
    count = sum(weight.numel() for name, weight in qwen.named_parameters() if name in learning)
    assert count == config.num_hidden_layers * r * ends


def test_the_published_7b_gets_adapters_on_its_language_side_alone(shared_data: Path) -> None:
    folder = shared_data / "qwen2.5-vl-7b-instruct"
    check(adapted(Qwen2_5_VLConfig.from_pretrained(folder), 64), 64)


@pytest.mark.parametrize("preset", ["qwen2.5-vl-3b", "qwen2.5-vl-7b"])
def test_so_do_the_presets(tokenizer: PreTrainedTokenizerBase, preset: str) -> None:
    check(adapted(build_config(preset, tokenizer), 8), 8)
