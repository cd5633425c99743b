from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.text.prompt import (
    QUESTION,
    SYSTEM,
    encode_example,
    encode_prompt,
    num_visual_tokens,
    prompt_messages,
    without_thinking,
)
from tests.models import tiny_tokenizer
from tests.refusals import refusal

REPORT = "Findings: A nodule of 5 mm in the right lung.\nImpression: Lung nodule."


@pytest.fixture(scope="module", params=["tiny", "qwen"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    if request.param == "tiny":
        return tiny_tokenizer()
    shared: Path = request.getfixturevalue("shared_data")
    folder = shared / "qwen2.5-vl-7b-instruct"
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return loaded


def test_the_slices_come_before_the_question(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(encode_prompt(tokenizer, (2, 2, 4)))
    assert text == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        f"{'<|video_pad|>' * 4}<|vision_end|>{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_cue_stands_behind_the_question_and_carries_no_loss(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for cue, told in ((("Emphysema", "Lung nodule"), "Emphysema, Lung nodule"), ((), "no finding")):
        prompt = encode_prompt(tokenizer, (1, 2, 2), cue)
        end = f"{QUESTION} The image suggests: {told}.<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(prompt).endswith(end)
        ids, labels = encode_example(tokenizer, REPORT, (1, 2, 2), cue)
        assert ids[: len(prompt)] == prompt
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert tokenizer.decode(ids[len(prompt) :]) == REPORT + "<|im_end|>"
    assert encode_prompt(tokenizer, (1, 2, 2), None) == encode_prompt(tokenizer, (1, 2, 2))


def test_expansion_equals_tokenising_the_expanded_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = encode_prompt(tokenizer, (5, 8, 8))
    assert ids == tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False)
    pad = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert ids.count(pad) == num_visual_tokens((5, 8, 8)) == 80


def test_only_the_answer_and_its_end_are_supervised(tokenizer: PreTrainedTokenizerBase) -> None:
    input_ids, labels = encode_example(tokenizer, REPORT, (1, 2, 2))
    assert len(input_ids) == len(labels)
    prompt = encode_prompt(tokenizer, (1, 2, 2))
    assert input_ids[: len(prompt)] == prompt
    assert labels[: len(prompt)] == [-100] * len(prompt)
    assert labels[len(prompt) :] == input_ids[len(prompt) :]
    assert tokenizer.decode(input_ids[len(prompt) :]) == REPORT + "<|im_end|>"
    assert labels[-1] == tokenizer.eos_token_id


def test_the_whole_is_what_the_chat_template_renders(tokenizer: PreTrainedTokenizerBase) -> None:
    answered = [*prompt_messages(), {"role": "assistant", "content": REPORT}]
    rendered = tokenizer.apply_chat_template(answered, tokenize=False)
    input_ids, _ = encode_example(tokenizer, REPORT, (1, 2, 2))
    assert tokenizer.decode(input_ids) == rendered.removesuffix("\n")


THINKS = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' + message.content[1].text -}}
{%- endif -%}{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n<think>\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""
"""As Qwen3.5's: before the answer the model thinks, unless it is told not to."""


def test_a_model_that_would_think_answers_at_once() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = THINKS
    prompt = encode_prompt(tokenizer, (1, 2, 2))
    assert tokenizer.decode(prompt).endswith("assistant\n<think>\n\n</think>\n\n")
    ids, _ = encode_example(tokenizer, REPORT, (1, 2, 2))
    assert tokenizer.decode(ids[len(prompt) :]) == REPORT + "<|im_end|>"
    tokenizer.chat_template = without_thinking(THINKS)  # whoever renders it
    rendered = tokenizer.apply_chat_template(
        prompt_messages(), tokenize=False, add_generation_prompt=True
    )
    assert rendered == tokenizer.decode(prompt)


def test_both_tokenizers_refuse_reports_that_pose_as_chat(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(CtscribeError, match=r"train_1_a_1 must be plain text.*<\|im_end\|>"):
        encode_example(tokenizer, "Normal.<|im_end|>", (1, 2, 2), study="train_1_a_1")
    with refusal("E_REPORT", "train_1_a_1 must have a report"):
        encode_example(tokenizer, " \n", (1, 2, 2), study="train_1_a_1")


@pytest.mark.parametrize("grid", [(0, 2, 2), (1, 3, 2), (1, 2, 5)])
def test_half_tokens_are_refused(grid: tuple[int, int, int]) -> None:
    with pytest.raises(CtscribeError, match=r"multiples of `slices\.token_side_px`"):
        num_visual_tokens(grid)


def test_a_tokenizer_without_the_placeholder_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    with pytest.raises(CtscribeError, match="tokenizer that came with the weights"):
        encode_prompt(tokenizer, (1, 2, 2))
