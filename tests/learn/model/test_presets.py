"""The tokenizer, the sizes and the adapters of the presets and of the published model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from ctscribe.data import doctor
from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.presets import (
    PRESETS,
    SPECIAL_TOKENS,
    build_config,
    train_tokenizer,
)


def count(config: Qwen2_5_VLConfig) -> tuple[int, float]:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    return len(model.state_dict()), sum(p.numel() for p in model.parameters()) / 1e9


def test_the_published_configuration_is_the_7b(shared_data: Path) -> None:
    folder = shared_data / "qwen2.5-vl-7b-instruct"
    tensors, billions = count(Qwen2_5_VLConfig.from_pretrained(folder))
    assert tensors == 729
    assert billions == pytest.approx(8.292, abs=5e-4)


@pytest.mark.parametrize(("preset", "published"), [("3b", 3.755), ("7b", 8.292)])
def test_presets_have_the_published_dimensions(
    shared_data: Path, preset: str, published: float
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
    config = build_config(f"qwen2.5-vl-{preset}", tokenizer)
    _, billions = count(config)
    tables, rows = {"3b": (1, 151_936), "7b": (2, 152_064)}[preset]
    padding = (rows - len(tokenizer)) * config.text_config.hidden_size * tables / 1e9
    assert billions + padding == pytest.approx(published, abs=5e-4)
    if preset == "7b":
        real = Qwen2_5_VLConfig.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
        for name in ("image_token_id", "video_token_id", "vision_start_token_id"):
            assert getattr(config, name) == getattr(real, name)
        assert config.text_config.rope_parameters == {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        }
        ours, theirs = config.vision_config.to_dict(), real.vision_config.to_dict()
        differ = {key for key in ours if ours[key] != theirs.get(key)}
        assert differ <= {"dtype", "rope_parameters"}


@pytest.mark.parametrize(
    ("preset", "rows", "published"),
    [("qwen3-vl-4b", 151_936, 4.44), ("qwen3.5-4b", 248_320, 4.54)],
)
def test_presets_of_later_families_have_the_published_size(
    shared_data: Path, preset: str, rows: int, published: float
) -> None:
    """Billions of weights, with so many rows in the embedding table; Qwen3.5's without the layers
    that foretell further tokens, which the library does not load."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
    config = build_config(preset, tokenizer)
    with torch.device("meta"):
        model = PRESETS[preset].backbone.model(config)
    billions = sum(weight.numel() for weight in model.parameters()) / 1e9
    padding = (rows - len(tokenizer)) * config.text_config.hidden_size / 1e9
    assert billions + padding == pytest.approx(published, abs=5e-3)


def test_the_doctor_counts_features_of_every_preset(tokenizer: PreTrainedTokenizerBase) -> None:
    for name in PRESETS:
        config = build_config(name, tokenizer)
        levels = 1 + len(getattr(config.vision_config, "deepstack_visual_indexes", ()))
        widths = config.text_config.hidden_size, 4 * config.vision_config.hidden_size
        assert doctor._FEATURE_WIDTHS[name] == tuple(levels * width for width in widths)


def test_tiny_is_a_few_million_parameters(tokenizer: PreTrainedTokenizerBase) -> None:
    _, billions = count(build_config("tiny", tokenizer))
    assert 1e-3 < billions < 5e-3


CHATS = [
    [{"role": "user", "content": "Hello."}],
    [
        {"role": "system", "content": "You report."},
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Write it."}]},
        {"role": "assistant", "content": "Findings: none."},
    ],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a\nb"}]}],
]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    import unicodedata

    ids = tokenizer(text).input_ids
    plain = unicodedata.normalize("NFC", text)
    if not any(token in plain for token in SPECIAL_TOKENS):
        assert tokenizer.decode(ids) == plain


def test_special_tokens_are_single_and_qwens(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for either in (tokenizer, again):
        ids = [either(token).input_ids for token in SPECIAL_TOKENS]
        assert ids == [[i] for i in range(len(SPECIAL_TOKENS))]
        assert (either.eos_token, either.pad_token) == ("<|im_end|>", "<|endoftext|>")
    chat = again.apply_chat_template(CHATS[1], tokenize=False)
    assert chat == tokenizer.apply_chat_template(CHATS[1], tokenize=False)


def test_frequent_words_are_one_token_and_digits_stand_alone() -> None:
    tokenizer = train_tokenizer(["There is a pleural effusion of 123 mm."] * 5)
    assert "Ġeffusion" in tokenizer.tokenize("pleural effusion")
    assert tokenizer.tokenize("123") == ["1", "2", "3"]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = [f"Report {n}: the heart is {n * 7} mm wide." for n in range(40)]
    first, second = (train_tokenizer(texts).get_vocab() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [False, True])
def test_chat_reads_as_qwens(
    tokenizer: PreTrainedTokenizerBase,
    shared_data: Path,
    chat: list[dict[str, object]],
    prompt: bool,
) -> None:
    real = AutoTokenizer.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
    expected = real.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
    ours = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
    assert ours == expected


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
