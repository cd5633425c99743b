"""Presets: sizes of models, where their public weights are, and the tiny model's tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ctscribe.learn.model.backbone import Backbone
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.qwen3_5 import QWEN3_5
from ctscribe.learn.model.qwen3_vl import QWEN3_VL


@final
@dataclass(frozen=True)
class Preset:
    """One size of one family."""

    backbone: Backbone
    language: dict[str, Any]
    tower: dict[str, Any]
    hub_id: str | None = None
    """Repository of the public weights; None for `tiny`, which starts from a warm-up."""


_QWEN2_5_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "num_position_embeddings": 2304,
}
PRESETS = {
    "tiny": Preset(
        QWEN2_5_VL,
        {
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.08,
            "mrope_section": [4, 6, 6],
            "tie_word_embeddings": True,
        },
        {
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "fullatt_block_indexes": [1, 3],
            "initializer_range": 0.08,
        },
    ),
    "qwen2.5-vl-3b": Preset(
        QWEN2_5_VL,
        {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128000,
            "mrope_section": [16, 24, 24],
            "tie_word_embeddings": True,
        },
        _QWEN2_5_TOWER,
        "Qwen/Qwen2.5-VL-3B-Instruct",
    ),
    "qwen2.5-vl-7b": Preset(
        QWEN2_5_VL,
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "mrope_section": [16, 24, 24],
            "tie_word_embeddings": False,
        },
        _QWEN2_5_TOWER,
        "Qwen/Qwen2.5-VL-7B-Instruct",
    ),
    "qwen3-vl-4b": Preset(
        QWEN3_VL,
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "mrope_section": [24, 20, 20],
            "tie_word_embeddings": True,
        },
        {**_QWEN3_TOWER, "deepstack_visual_indexes": [5, 11, 17]},
        "Qwen/Qwen3-VL-4B-Instruct",
    ),
    "qwen3.5-4b": Preset(
        QWEN3_5,
        {
            "hidden_size": 2560,
            "intermediate_size": 9216,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "max_position_embeddings": 262144,
            "mrope_section": [11, 11, 10],
            "tie_word_embeddings": True,
        },
        _QWEN3_TOWER,
        "Qwen/Qwen3.5-4B",
    ),
}
HUB_IDS = {name: preset.hub_id for name, preset in PRESETS.items() if preset.hub_id}
"""Preset → repository of its public weights."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen's special tokens, in its order."""

# Qwen's pre-tokenisation: words with their leading space, single digits, punctuation, line ends.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def build_config(preset: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Configuration of a preset for one tokenizer.

    The published models pad their embedding tables, Qwen2.5-VL's 3B and 7B to 151,936 and 152,064
    rows; a preset built here has as many rows as the tokenizer has tokens, which is what random
    weights need. The ids of Qwen's special tokens are the tokenizer's too.
    """
    chosen = PRESETS[preset]

    def token_id(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))

    words = {
        "vocab_size": len(tokenizer),
        "bos_token_id": token_id("<|endoftext|>"),
        "eos_token_id": token_id("<|im_end|>"),
    }
    return chosen.backbone.build_config(
        {**chosen.language, **words},
        chosen.tower,
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1500) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer with Qwen's special tokens and an equivalent chat template.

    Byte level means that any text can be encoded and decoded without loss. ``vocab_size`` includes
    the special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIAL_TOKENS if "im_end" not in t],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    wrapped.chat_template = _CHAT_TEMPLATE
    return wrapped
