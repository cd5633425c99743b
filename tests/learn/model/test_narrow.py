"""Leaving out what nobody reads changes neither losses nor gradients."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.adapters import add_adapters
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.model.segments import narrow
from tests.learn.model.batches import make_batch, random_frames

ANSWERS = ["Findings: The lungs are clear.\nImpression: Normal.", "Findings: 12 mm nodule."]


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    frames = [random_frames(4, 56, 84, 0), random_frames(4, 112, 56, 1)]
    made: dict[str, Any] = make_batch(tokenizer, ANSWERS, frames, padding=3)
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
    narrowed = deepcopy(whole)
    narrow(narrowed)
    values, gradients = learned(narrowed, batch)
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
    narrowed = deepcopy(qwen)
    narrow(narrowed)
    seen = []
    last = narrowed.model.language_model.layers[-1]
    for module in (last.mlp, last.self_attn.q_proj, last.self_attn.k_proj):
        module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    answer_losses(narrowed, batch, "depth")  # type: ignore[arg-type]
    read = int((batch["labels"] != -100).sum()) + len(ANSWERS)
    every = int(batch["attention_mask"].sum())
    assert sorted(seen) == [read, read, every]


def test_whoever_does_not_say_what_is_read_gets_every_state(
    qwen: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Any]
) -> None:
    narrowed = deepcopy(qwen)
    narrow(narrowed)
    ids = batch["input_ids"]
    with torch.no_grad():
        states = [
            model.model.language_model(input_ids=ids).last_hidden_state
            for model in (narrowed, qwen)
        ]
    torch.testing.assert_close(*states)
