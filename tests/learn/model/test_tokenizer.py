from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ctscribe.learn.model.presets import SPECIAL_TOKENS, train_tokenizer

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
