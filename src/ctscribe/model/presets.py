"""The dimensions a recipe may name, and where each preset's weights come from."""

from typing import Any

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig

HUB_IDS = {
    "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
}
"""Public weights of the presets that have any; `tiny` starts from a warm-up."""

_QWEN_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TOWERS: dict[str, dict[str, Any]] = {
    "tiny": {
        "depth": 4,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "fullatt_block_indexes": [1, 3],
        "initializer_range": 0.08,
    },
    "qwen2.5-vl-3b": _QWEN_TOWER,
    "qwen2.5-vl-7b": _QWEN_TOWER,
}
_LANGUAGE: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.08,
        "mrope_section": [4, 6, 6],
    },
    "qwen2.5-vl-3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128000,
        "mrope_section": [16, 24, 24],
    },
    "qwen2.5-vl-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "mrope_section": [16, 24, 24],
    },
}


def build_config(preset: str, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Configuration of a preset for one tokenizer.

    The published 3B and 7B pad their embedding tables to 151,936 and 152,064 rows; a preset built
    here has as many rows as the tokenizer has tokens, which is what random weights need.

    Args:
        preset: `tiny`, `qwen2.5-vl-3b` or `qwen2.5-vl-7b`.
        tokenizer: Supplies the vocabulary's size and the ids of Qwen's special tokens.
    """
    language = dict(_LANGUAGE[preset])
    sections = language.pop("mrope_section")

    def token_id(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))

    return Qwen2_5_VLConfig(
        text_config={
            **language,
            "vocab_size": len(tokenizer),
            "rms_norm_eps": 1e-6,
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": sections,
            },
        },
        vision_config={
            **_TOWERS[preset],
            "out_hidden_size": language["hidden_size"],
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "tokens_per_second": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=preset != "qwen2.5-vl-7b",
    )
