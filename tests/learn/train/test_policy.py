"""The gradient of drawn reports against the exact one, and what an update leaves."""

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.decoding import Answer, write_reports
from ctscribe.learn.model.qwen import AnswerLosses, answer_losses
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.learn.reward import advantages
from ctscribe.learn.train.policy import Policy, as_sample, policy_loss
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.text.prompt import encode_example, encode_prompt
from tests.learn.model.batches import random_frames
from tests.learn.train.runs import make_recipe

EARNS: dict[tuple[int, ...], float] = {(0, 0): 0.3, (0, 1): 1.0, (1, 0): -0.4, (1, 1): 0.0}
"""Reward of each text of two tokens out of two."""


def nats(logits: Tensor, text: tuple[int, ...]) -> Tensor:
    """Of each token; the second depends on the first."""
    first = -logits[0].log_softmax(-1)[text[0]]
    return torch.stack([first, -logits[1 + text[0]].log_softmax(-1)[text[1]]])


def probability(logits: Tensor, text: tuple[int, ...]) -> Tensor:
    return (-nats(logits, text).sum()).exp()


def groups(logits: Tensor, size: int) -> Iterator[tuple[float, list[tuple[int, ...]]]]:
    """Every group of drawn texts with its probability: expectations without any noise."""
    for drawn in product(EARNS, repeat=size):
        chance = torch.stack([probability(logits, text) for text in drawn]).prod()
        yield float(chance.detach()), [*drawn]


def expected_gradient(logits: Tensor, size: int, gains_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over all groups of the gradient that an update would take."""
    total = torch.zeros_like(logits)
    for weight, drawn in groups(logits, size):
        gains = gains_of(torch.tensor([[EARNS[text] for text in drawn]], dtype=torch.float64))[0]
        values = torch.cat([nats(logits, text) for text in drawn])
        rows = torch.arange(size).repeat_interleave(2)
        loss = policy_loss(AnswerLosses(values.float(), rows, size), gains, num_tokens=2 * size)
        total += weight * torch.autograd.grad(loss, logits)[0]
    return total


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("size", [2, 3])
def test_the_expected_gradient_is_that_of_the_expected_reward(logits: Tensor, size: int) -> None:
    found = expected_gradient(logits, size, lambda r: r - r.mean(1, keepdim=True))
    earned = torch.stack([probability(logits, text) * r for text, r in EARNS.items()]).sum()
    (exact,) = torch.autograd.grad(earned, logits)
    # a group's mean holds the report itself, and each report has two tokens
    torch.testing.assert_close(found, -(1 - 1 / size) / 2 * exact, atol=1e-6, rtol=1e-5)


def test_with_normalised_advantages_pairs_learn_who_won(logits: Tensor) -> None:
    """Of two reports the better one has the advantage 1 and the other −1, whatever the margin."""
    found = expected_gradient(logits, 2, advantages)
    won = torch.zeros((), dtype=torch.float64)
    for one, other in product(EARNS, repeat=2):
        sign = (EARNS[one] > EARNS[other]) - (EARNS[one] < EARNS[other])
        won = won + sign * probability(logits, one) * probability(logits, other).detach()
    (exact,) = torch.autograd.grad(won, logits)
    torch.testing.assert_close(found, -exact / 2, atol=1e-6, rtol=1e-5)
    assert exact.norm() > 0.01


def shown(qwen: Qwen2_5_VLForConditionalGeneration, seed: int, width: int) -> Visual:
    with torch.inference_mode():
        tokens = encode_frames(qwen, [random_frames(4, 112, width, seed)])
    grid = (2, 112 // 14, width // 14)
    return Visual(grid, (100.0, 60.0), None, tokens.clone(), cue=("Lung nodule",)[: seed % 2])


def reference(tokenizer: PreTrainedTokenizerBase, visual: Visual) -> Sample:
    ids, labels = encode_example(tokenizer, "Clear.", visual.grid_thw, visual.cue)
    return Sample("a", torch.tensor(ids), torch.tensor(labels), visual)


def test_a_drawn_report_is_scored_as_it_was_drawn(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    visuals = [shown(qwen, seed, width) for seed, width in ((1, 112), (2, 56), (3, 112))]
    generator = torch.Generator().manual_seed(5)
    answers = write_reports(qwen, tokenizer, visuals, "depth", 12, sample=generator)
    samples = [
        as_sample(reference(tokenizer, visual), answer, tokenizer)
        for visual, answer in zip(visuals, answers, strict=True)
    ]
    assert [answer.finished for answer in answers] == [False] * 3
    with torch.no_grad():
        losses = answer_losses(qwen, collate_samples(samples, 0), "depth")
    logs = [value for answer in answers for value in answer.token_log_probs]
    torch.testing.assert_close(losses.values, -torch.tensor(logs), atol=1e-4, rtol=1e-4)
    assert losses.rows.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_a_finished_report_also_answers_for_its_end(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    visual = shown(qwen, 1, 56)
    plain = reference(tokenizer, visual)
    prompt = encode_prompt(tokenizer, visual.grid_thw, visual.cue)
    for finished in (True, False):
        answer = Answer("x", (5, 6), (-1.0, -2.0), finished)
        sample = as_sample(plain, answer, tokenizer)
        tokens = [5, 6, *([tokenizer.eos_token_id] if finished else [])]
        assert sample.input_ids.tolist() == [*prompt, *tokens]
        assert sample.labels.tolist() == [-100] * len(prompt) + tokens
        assert sample.visual is visual


def test_the_draws_of_an_update_follow_from_seed_and_number(
    qwen: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    visual, told = shown(qwen, 1, 56), {}
    for seed, step in ((0, 1), (0, 2), (1, 1), (1, 2)):
        recipe = make_recipe(
            reinforce={"seed": seed}, generate={"max_new_tokens": 8, "batch_size": 1}
        )
        policy = Policy(ReportScorer(qwen, "depth"), tokenizer, recipe)
        answers = [policy.write([visual] * 2, policy._draws(step)) for _ in range(2)]
        assert answers[0] == answers[1]
        told[seed, step] = tuple(answer.token_ids for answer in answers[0])
        assert told[seed, step][0] != told[seed, step][1]
    assert len({*told.values()}) == 4
