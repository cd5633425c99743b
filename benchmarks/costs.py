"""What the parts of a model cost, from its configuration alone: operations, weights, activations.

An operation is one multiplication or one addition. Attention counts whole squares, as torch counts
it, though a causal kernel does half; of a recurrent layer's chunks the triangular system is left
out, as torch leaves it out. `tests/test_costs.py` holds all of it against small models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.text.prompt import QUESTION, SYSTEM

VOCABULARIES = {
    "qwen2.5-vl-3b": 151936,
    "qwen2.5-vl-7b": 152064,
    "qwen3-vl-4b": 151936,
    "qwen3.5-4b": 248320,
}
"""Rows of the published embedding tables."""
_WINDOW_PATCHES = 64
_CHUNK = 64
"""Tokens that a recurrent layer reads at once."""
Shape = tuple[int, int]
"""Of a matrix: what goes in, what comes out."""


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
) -> PreTrainedConfig:
    """A preset's true dimensions, its published vocabulary among them, for any tokenizer's ids."""
    words = tokenizer or train_tokenizer([SYSTEM, QUESTION] * 3, vocab_size=300)
    config = build_config(preset, words)
    config.text_config.vocab_size = VOCABULARIES[preset]
    return config


def tower_flops(config: PreTrainedConfig, sample: Sample) -> int:
    """Tower and mergers on one scan, forward."""
    tower = config.vision_config
    patches = sample.visual_tokens * MERGE**2
    whole = len(getattr(tower, "fullatt_block_indexes", range(tower.depth)))
    seen = whole * patches // sample.slice_pairs + (tower.depth - whole) * _WINDOW_PATCHES
    matrices = patches * _block_weights(config) + sample.visual_tokens * _merger_weights(config)
    return int(2 * matrices + 4 * patches * tower.hidden_size * seen)


def _block_weights(config: PreTrainedConfig) -> int:
    """Of the patch embedding and of all blocks."""
    tower = config.vision_config
    width, inner = tower.hidden_size, tower.intermediate_size
    feeding = 3 if tower.hidden_act == "silu" else 2  # with a gate or without
    a_block = 4 * width + feeding * inner
    return int(width * (3 * 2 * tower.patch_size**2 + tower.depth * a_block))


def _merger_weights(config: PreTrainedConfig) -> int:
    """Of all mergers."""
    tower = config.vision_config
    merged = MERGE**2 * tower.hidden_size
    number = 1 + len(getattr(tower, "deepstack_visual_indexes", ()))
    return int(number * merged * (merged + config.text_config.hidden_size))


def language_flops(config: PreTrainedConfig, sample: Sample, rank: int) -> int:
    """Language model with adapters and output layer on one sample, forward.

    The last layer computes queries and everything behind them at the answer alone.
    """
    return sum(_language_parts(config, sample, rank))


def pair_flops(
    config: PreTrainedConfig,
    sample: Sample,
    rank: int,
    *,
    skipped: bool = False,
    again: bool = False,
) -> int:
    """Two branches forward and backward from stored features, where adapters alone learn.

    Backward each matrix gives gradients of its input, adapters also their own, attention takes five
    products where forward it takes two, and a recurrence two for each. A ``skipped`` negative goes
    forward alone. With ``again`` all layers are computed a second time before they go backward.
    """
    linear, attention, recurrence, head = _language_parts(config, sample, rank)
    adapters = linear - _language_parts(config, sample, 0)[0]
    forward = linear + attention + recurrence + head
    backward = linear + adapters + attention * 5 // 2 + 2 * recurrence + head
    if again:
        backward += linear + attention + recurrence
    return 2 * forward + (1 if skipped else 2) * backward


def _language_parts(
    config: PreTrainedConfig, sample: Sample, rank: int
) -> tuple[int, int, int, int]:
    """Operations of matrices, of attention, of recurrence, and of the output layer."""
    text, read = config.text_config, sample.answer_tokens
    attending, recurrent = _num_layers(config)
    keys_and_values, others = (_numbers(part, rank) for part in _attending(config))
    linear = 2 * sample.tokens * ((attending - 1) * (keys_and_values + others) + keys_and_values)
    linear += 2 * read * others
    width = text.num_attention_heads * head_width(config)
    attention = 4 * width * sample.tokens * ((attending - 1) * sample.tokens + read)
    recurrence = 0
    if recurrent:
        linear += 2 * sample.tokens * recurrent * _recurrent_weights(config, rank)
        recurrence = recurrent * _recurrence_flops(config, sample.tokens)
    return linear, attention, recurrence, 2 * read * text.vocab_size * text.hidden_size


def head_width(config: PreTrainedConfig) -> int:
    text = config.text_config
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _num_layers(config: PreTrainedConfig) -> Shape:
    """Decoder layers that attend, and recurrent ones; the last attends."""
    text = config.text_config
    recurrent = (getattr(text, "layer_types", None) or []).count("linear_attention")
    return text.num_hidden_layers - recurrent, recurrent


def _attending(config: PreTrainedConfig) -> tuple[list[Shape], list[Shape]]:
    """Matrices of a layer that attends: for keys and values, and the others."""
    text = config.text_config
    width, all_heads = text.hidden_size, text.num_attention_heads * head_width(config)
    narrow = (width, text.num_key_value_heads * head_width(config))
    # beside recurrent layers each query has a gate
    queries = all_heads * (2 if _num_layers(config)[1] else 1)
    return [narrow, narrow], [(width, queries), (all_heads, width), *_feeding(config)]


def _feeding(config: PreTrainedConfig) -> list[Shape]:
    width, inner = config.text_config.hidden_size, config.text_config.intermediate_size
    return [(width, inner), (width, inner), (inner, width)]


def _recurrent_weights(config: PreTrainedConfig, rank: int) -> int:
    """Of a recurrent layer's matrices with adapters of this rank; its two gates have none."""
    text = config.text_config
    width, heads = text.hidden_size, text.linear_num_value_heads
    values = heads * text.linear_value_head_dim
    mixed = 2 * text.linear_num_key_heads * text.linear_key_head_dim + values
    gates = [(width, heads), (width, heads), (text.linear_conv_kernel_dim, mixed)]
    adapted = [(width, mixed), (width, values), (values, width), *_feeding(config)]
    return _numbers(adapted, rank) + _numbers(gates, 0)


def _recurrence_flops(config: PreTrainedConfig, tokens: int) -> int:
    """The gated delta rule of one layer, chunk by chunk; the last chunk is filled up."""
    text = config.text_config
    keys, values = text.linear_key_head_dim, text.linear_value_head_dim
    a_token = 2 * (_CHUNK * (2 * keys + values) + 3 * keys * values)
    return int(text.linear_num_value_heads * -(-tokens // _CHUNK) * _CHUNK * a_token)


def _numbers(matrices: Sequence[Shape], rank: int) -> int:
    """In matrices with adapters of this rank."""
    return int(sum(into * out + rank * (into + out) for into, out in matrices))


def _layer_weights(config: PreTrainedConfig, rank: int) -> int:
    """Of the matrices of all decoder layers."""
    attending, recurrent = _num_layers(config)
    total = attending * sum(_numbers(part, rank) for part in _attending(config))
    return total + (recurrent * _recurrent_weights(config, rank) if recurrent else 0)


def adapter_weights(config: PreTrainedConfig, rank: int) -> int:
    """Numbers in the adapters of all decoder layers."""
    return _layer_weights(config, rank) - _layer_weights(config, 0)


def language_weights(config: PreTrainedConfig) -> int:
    """Numbers that writing one token reads: the layers' matrices and the output layer."""
    text = config.text_config
    return int(_layer_weights(config, 0) + text.vocab_size * text.hidden_size)


def weights(config: PreTrainedConfig) -> int:
    """Numbers in all matrices of the model; norms and biases are 0.01 % more."""
    tower, text = config.vision_config, config.text_config
    seeing = _block_weights(config) + _merger_weights(config)
    seeing += getattr(tower, "num_position_embeddings", 0) * tower.hidden_size
    embedding = 0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size
    return int(seeing + language_weights(config) + embedding)


def kept_bytes(config: PreTrainedConfig, rank: int) -> int:
    """Bytes per token that all decoder layers keep for the backward pass, in bfloat16."""
    by_kind = zip(_num_layers(config), _kept_by_layer(config, rank), strict=True)
    return sum(number * a_layer for number, a_layer in by_kind)


def recomputed_bytes(config: PreTrainedConfig, rank: int) -> int:
    """The same where layers keep their input alone and are computed again, one after another."""
    text = config.text_config
    return int(2 * text.num_hidden_layers * text.hidden_size) + max(_kept_by_layer(config, rank))


def _kept_by_layer(config: PreTrainedConfig, rank: int) -> Shape:
    """Bytes per token that a layer keeps which attends, and a recurrent one; 0 where none is.

    Measured on small models. A recurrent layer is the library's own, in float32 and without a
    kernel: it keeps most of what stands between its products.
    """
    text = config.text_config
    heads = text.num_attention_heads * head_width(config)
    keys_and_values = 2 * text.num_key_value_heads * head_width(config)
    every = 19 * text.hidden_size + 9 * text.intermediate_size + 14 * rank
    attending = every + 6 * heads + 5 * keys_and_values
    if getattr(text, "head_dim", None) is not None:  # where heads have norms of their own
        attending += 4 * heads + 2 * keys_and_values
    if not _num_layers(config)[1]:
        return attending, 0
    values = text.linear_num_value_heads * text.linear_value_head_dim
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    return attending + 4 * heads, every + 89 * values + 4 * (2 * keys + values)
