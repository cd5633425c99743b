"""What the parts of a model cost, from its configuration alone: operations, weights, activations.

An operation is one multiplication or one addition. Attention counts whole squares, as torch counts
it, though a causal kernel does half. `tests/test_costs.py` holds all of it against small models.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig

from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.text.prompt import QUESTION, SYSTEM

VOCABULARIES = {"qwen2.5-vl-3b": 151936, "qwen2.5-vl-7b": 152064}
"""Rows of the published embedding tables."""
_WINDOW_PATCHES = 64


@dataclass(frozen=True)
class Sample:
    """One report with its scan, in tokens."""

    slice_pairs: int
    rows: int
    columns: int
    """Visual tokens of a slice pair."""
    prompt_tokens: int
    """Text before the answer."""
    answer_tokens: int

    @property
    def visual_tokens(self) -> int:
        return self.slice_pairs * self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.visual_tokens + self.prompt_tokens + self.answer_tokens


def published_config(
    preset: str, tokenizer: PreTrainedTokenizerBase | None = None
) -> Qwen2_5_VLConfig:
    """A preset's true dimensions, its published vocabulary among them, for any tokenizer's ids."""
    words = tokenizer or train_tokenizer([SYSTEM, QUESTION] * 3, vocab_size=300)
    config = build_config(preset, words)
    config.text_config.vocab_size = VOCABULARIES[preset]
    return config


def tower_flops(config: Qwen2_5_VLConfig, sample: Sample) -> int:
    """Tower and merger on one scan, forward."""
    tower, out = config.vision_config, config.text_config.hidden_size
    width, patches = tower.hidden_size, sample.visual_tokens * MERGE**2
    a_patch = 2 * width * (3 * 2 * QWEN2_5_VL.patch_px**2 + tower.depth * _block_rows(config))
    whole = len(tower.fullatt_block_indexes)
    seen = whole * patches // sample.slice_pairs + (tower.depth - whole) * _WINDOW_PATCHES
    merged = MERGE**2 * width
    merger = sample.visual_tokens * 2 * merged * (merged + out)
    return int(patches * (a_patch + 4 * width * seen) + merger)


def _block_rows(config: Qwen2_5_VLConfig) -> int:
    """Weights of a tower block's matrices, in rows of the tower's width."""
    return 4 * int(config.vision_config.hidden_size) + 3 * int(
        config.vision_config.intermediate_size
    )


def language_flops(config: Qwen2_5_VLConfig, sample: Sample, rank: int) -> int:
    """Language model with adapters and output layer on one sample, forward.

    The last layer computes queries and everything behind them at the answer alone.
    """
    linear, attention, head = _language_parts(config, sample, rank)
    return linear + attention + head


def pair_flops(
    config: Qwen2_5_VLConfig, sample: Sample, rank: int, *, skipped: bool = False
) -> int:
    """Two branches forward and backward from stored features, where adapters alone learn.

    Backward each matrix gives gradients of its input, adapters also their own, and attention takes
    five products where forward it takes two. A ``skipped`` negative goes forward alone.
    """
    linear, attention, head = _language_parts(config, sample, rank)
    adapters = linear - _language_parts(config, sample, 0)[0]
    forward = linear + attention + head
    backward = linear + adapters + attention * 5 // 2 + head
    return 2 * forward + (1 if skipped else 2) * backward


def _language_parts(config: Qwen2_5_VLConfig, sample: Sample, rank: int) -> tuple[int, int, int]:
    """Operations of matrices, of attention, and of the output layer."""
    text = config.text_config
    earlier, read = text.num_hidden_layers - 1, sample.answer_tokens
    all_weights, keys_and_values = _layer_weights(config, rank)
    linear = 2 * sample.tokens * (earlier * all_weights + keys_and_values)
    linear += 2 * read * (all_weights - keys_and_values)
    width = text.num_attention_heads * head_width(config)
    attention = 4 * width * sample.tokens * (earlier * sample.tokens + read)
    return linear, attention, 2 * read * text.vocab_size * text.hidden_size


def head_width(config: Qwen2_5_VLConfig) -> int:
    return int(config.text_config.hidden_size // config.text_config.num_attention_heads)


def _layer_weights(config: Qwen2_5_VLConfig, rank: int) -> tuple[int, int]:
    """Of a decoder layer's matrices with adapters of this rank; of those for keys and values."""
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    narrow = text.num_key_value_heads * head_width(config)
    keys_and_values = 2 * (width * narrow + rank * (width + narrow))
    others = 2 * (width * width + rank * 2 * width) + 3 * (width * inner + rank * (width + inner))
    return keys_and_values + others, keys_and_values


def adapter_weights(config: Qwen2_5_VLConfig, rank: int) -> int:
    """Numbers in the adapters of all decoder layers."""
    a_layer = _layer_weights(config, rank)[0] - _layer_weights(config, 0)[0]
    return int(config.text_config.num_hidden_layers * a_layer)


def language_weights(config: Qwen2_5_VLConfig) -> int:
    """Numbers that writing one token reads: the layers' matrices and the output layer."""
    text = config.text_config
    return int(
        text.num_hidden_layers * _layer_weights(config, 0)[0] + text.vocab_size * text.hidden_size
    )


def weights(config: Qwen2_5_VLConfig) -> int:
    """Numbers in all matrices of the model; norms and biases are 0.01 % more."""
    tower, text = config.vision_config, config.text_config
    merged = MERGE**2 * tower.hidden_size
    seeing = tower.hidden_size * (
        3 * 2 * QWEN2_5_VL.patch_px**2 + tower.depth * _block_rows(config)
    )
    seeing += merged * (merged + text.hidden_size)
    embedding = 0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size
    return int(seeing + language_weights(config) + embedding)


def kept_bytes(config: Qwen2_5_VLConfig, rank: int) -> int:
    """Bytes per token that all decoder layers keep for the backward pass, in bfloat16.

    Measured on small models: 25 a unit of width, 9 of the inner width, 5 of keys and values.
    """
    text = config.text_config
    keys_and_values = 2 * text.num_key_value_heads * head_width(config)
    a_layer = 25 * text.hidden_size + 9 * text.intermediate_size + 5 * keys_and_values + 14 * rank
    return int(text.num_hidden_layers * a_layer)
