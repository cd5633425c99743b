"""What of the vision tower learns in a warm-up."""

from typing import Literal

from peft import LoraConfig, inject_adapter_in_model
from transformers import Qwen2_5_VLForConditionalGeneration

TOWER_LINEARS = r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"
"""Every linear layer of the tower's blocks."""


def let_tower_learn(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tower: Literal["full", "last_blocks", "lora"],
    *,
    last_blocks: int,
    lora_r: int,
    lora_alpha: int,
) -> None:
    """Freezes the model but for the part of its tower that shall learn, in place.

    Args:
        qwen: The model.
        tower: full: all of the tower; last_blocks: the last ones and the merger behind them;
            lora: adapters on all blocks, and the merger.
        last_blocks: How many.
        lora_r: Rank of the adapters.
        lora_alpha: Their scale, in units of rank.
    """
    visual = qwen.model.visual
    qwen.requires_grad_(False)
    if tower == "full":
        visual.requires_grad_(True)
        return
    visual.merger.requires_grad_(True)
    if tower == "last_blocks":
        visual.blocks[-last_blocks:].requires_grad_(True)
        return
    config = LoraConfig(r=lora_r, lora_alpha=lora_alpha, target_modules=TOWER_LINEARS, bias="none")
    inject_adapter_in_model(config, qwen)
    visual.merger.requires_grad_(True)  # adapters freeze what they are not put on
