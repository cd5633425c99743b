"""Samples in one row know nothing of each other, and equal themselves alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.qwen import answer_losses
from tests.learn.model.batches import make_batch, random_frames

ANSWERS = ["Findings: The lungs are clear.\nImpression: Normal.", "Findings: 12 mm nodule."]


@pytest.fixture
def batches(tokenizer: PreTrainedTokenizerBase) -> Callable[..., dict[str, Any]]:
    def make(answers: list[str], sizes: list[tuple[int, int]]) -> dict[str, Any]:
        frames = [random_frames(4, *size, seed) for seed, size in enumerate(sizes)]
        made: dict[str, Any] = make_batch(tokenizer, answers, frames)
        return made

    return make


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
    qwen: Qwen2_5_VLForConditionalGeneration, batches: Callable[..., Any], second: tuple[int, int]
) -> None:
    """Equal sizes attend as one batch, unequal ones in turn; both must isolate."""
    answers = [ANSWERS[0], ANSWERS[0]]
    batch = batches(answers, [(56, 84), second])
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
    batches: Callable[..., Any],
    sizes: list[tuple[int, int]],
) -> None:
    together = batches(ANSWERS, sizes)
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
    frames = [random_frames(4, 56, 84, 0), random_frames(4, 112, 112, 1)]
    batch = make_batch(tokenizer, ANSWERS, frames, padding=7)
    seen = []
    layer = qwen.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    answer_losses(qwen, batch, "depth")
    hook.remove()
    assert seen == [int(batch["attention_mask"].sum())]
