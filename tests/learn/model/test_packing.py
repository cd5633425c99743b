"""Samples in one row equal themselves alone, and leaving out what nobody reads changes nothing."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.packing import require_full_attention, trim_last_layer
from ctscribe.learn.model.qwen import answer_losses
from tests.learn.model.batches import ANSWERS, make_batch, random_frames
from tests.refusals import refusal


def batch_of(
    tokenizer: PreTrainedTokenizerBase,
    answers: list[str],
    sizes: list[tuple[int, int]],
    padding: int = 0,
) -> Any:  # noqa: ANN401  # as what it calls
    frames = [random_frames(4, *size, seed) for seed, size in enumerate(sizes)]
    return make_batch(tokenizer, answers, frames, padding)


def losses_and_gradient(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any], row: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of one row's mean, whatever else lies beside it."""
    qwen.zero_grad()
    losses = answer_losses(qwen, batch, "depth")  # type: ignore[arg-type]
    losses.per_sample()[row].backward()  # type: ignore[no-untyped-call]
    gradients = {n: p.grad for n, p in qwen.named_parameters() if p.grad is not None}
    qwen.zero_grad()
    return losses.values[losses.rows == row].detach(), gradients


@pytest.mark.parametrize("second", [(56, 84), (112, 56)])
def test_what_lies_beside_a_sample_never_reaches_it(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    second: tuple[int, int],
) -> None:
    """Equal sizes attend as one batch, unequal ones in turn; both must isolate."""
    answers = [ANSWERS[0], ANSWERS[0]]
    batch = batch_of(tokenizer, answers, [(56, 84), second])
    for row in range(2):
        before, slope = losses_and_gradient(qwen, batch, row)
        other = 1 - row
        changed = {**batch, "frames": list(batch["frames"]), "labels": batch["labels"].clone()}
        changed["frames"][other] = 255 - changed["frames"][other]
        changed["input_ids"] = batch["input_ids"].clone()
        answer = batch["labels"][other] != -100
        changed["input_ids"][other, answer] = batch["input_ids"][other, answer].flip(0)
        changed["labels"][other, answer] = changed["input_ids"][other, answer]
        after, new_slope = losses_and_gradient(qwen, changed, row)
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
        for name, gradient in slope.items():
            torch.testing.assert_close(new_slope[name], gradient, atol=1e-6, rtol=1e-5)
        disturbed, _ = losses_and_gradient(qwen, changed, other)
        assert not torch.allclose(disturbed, losses_and_gradient(qwen, batch, other)[0], atol=1e-2)


@pytest.mark.parametrize("sizes", [[(56, 84), (56, 84)], [(56, 84), (112, 56)]])
def test_one_row_equals_each_sample_alone(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    sizes: list[tuple[int, int]],
) -> None:
    together = batch_of(tokenizer, ANSWERS, sizes)
    for row in range(2):
        alone = {
            key: value[row : row + 1] for key, value in together.items()
        }  # keeps its padding, which must cost and change nothing
        values, gradients = losses_and_gradient(qwen, together, row)
        expected, reference = losses_and_gradient(qwen, alone, 0)
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
        for name, gradient in reference.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_padding_is_never_computed(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = batch_of(tokenizer, ANSWERS, [(56, 84), (112, 112)], padding=7)
    seen = []
    layer = qwen.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    answer_losses(qwen, batch, "depth")
    hook.remove()
    assert seen == [int(batch["attention_mask"].sum())]


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    made: dict[str, Any] = batch_of(tokenizer, ANSWERS, [(56, 84), (112, 56)], padding=3)
    return made


def learned(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses, and gradients of one row's mean minus a tenth of the other's, twice."""
    for _ in range(2):  # the second is added to what is there
        losses = answer_losses(qwen, batch, "depth")  # type: ignore[arg-type]
        own, other = losses.per_sample()
        (own - 0.1 * other).backward()
    return losses.values.detach(), {
        name: weight.grad for name, weight in qwen.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("tuning", ["full", "adapters"])
def test_losses_and_gradients_stay(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any], tuning: str
) -> None:
    whole = deepcopy(qwen)
    if tuning == "adapters":
        add_adapters(whole, r=2, alpha=4)
        draw = torch.Generator().manual_seed(0)
        for name, weight in whole.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.02, generator=draw)
    trimmed = deepcopy(whole)
    trim_last_layer(trimmed)
    values, gradients = learned(trimmed, batch)
    expected, reference = learned(whole, batch)
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-6)
    assert gradients.keys() == reference.keys()
    assert len(gradients) > 30
    for name, gradient in gradients.items():
        largest = max(1.0, float(reference[name].abs().max()))  # a sum errs by its largest terms
        torch.testing.assert_close(gradient, reference[name], atol=3e-6 * largest, rtol=0)


def test_only_what_is_read_is_computed(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any]
) -> None:
    trimmed = deepcopy(qwen)
    trim_last_layer(trimmed)
    seen = []
    last = trimmed.model.language_model.layers[-1]
    for module in (last.mlp, last.self_attn.q_proj, last.self_attn.k_proj):
        module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    answer_losses(trimmed, batch, "depth")  # type: ignore[arg-type]
    read = int((batch["labels"] != -100).sum()) + len(ANSWERS)
    every = int(batch["attention_mask"].sum())
    assert sorted(seen) == [read, read, every]


def test_a_layer_that_does_not_attend_cannot_share(
    qwen: Qwen2_5_VLForConditionalGeneration,
) -> None:
    require_full_attention(qwen)
    recurrent = deepcopy(qwen)
    recurrent.config.text_config.layer_types[0] = "linear_attention"
    with refusal("E_RECIPE", "all have full_attention, but this one has linear_attention too"):
        require_full_attention(recurrent)


def test_whoever_does_not_say_what_is_read_gets_every_state(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any]
) -> None:
    trimmed = deepcopy(qwen)
    trim_last_layer(trimmed)
    ids = batch["input_ids"]
    with torch.no_grad():
        states = [
            model.model.language_model(input_ids=ids).last_hidden_state for model in (trimmed, qwen)
        ]
    torch.testing.assert_close(*states)
