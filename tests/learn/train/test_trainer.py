"""Gradients of an update, against the objective written down in full, and what is counted."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ctscribe.learn.model.qwen import AnswerLosses
from ctscribe.learn.pairs.collate import Batch, collate_pairs
from ctscribe.learn.train.epochs import EpochsInOrder
from ctscribe.learn.train.scorer import ReportScorer
from ctscribe.learn.train.trainer import Tally, means
from tests.learn.train.bench import Bench, Gradients


@pytest.mark.parametrize(
    ("per_device", "accumulation", "objective"),
    [
        (1, 4, {}),
        (4, 1, {}),
        (2, 2, {"name": "logistic"}),
        (2, 2, {"name": "logistic", "scope": "disputed"}),
        (1, 4, {"name": "logistic", "scope": "weighted"}),
        (2, 2, {"scope": "weighted", "max_loss": 6.0}),
    ],
)
def test_gradients_equal_the_objective_of_the_whole_update(
    tmp_path: Path,
    bench: Callable[..., Bench],
    per_device: int,
    accumulation: int,
    objective: dict[str, object],
) -> None:
    tested = bench(per_device, accumulation, **objective)
    expected, _ = tested.by_hand(4)
    found = tested.trained(tmp_path)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


QUERIES = {"tuning": "lora", "lora_r": 4, "slice_attention": True, "cues": True}


@pytest.mark.parametrize(
    ("per_device", "accumulation", "again", "model", "objective"),
    [
        (2, 6, False, {}, {}),
        (4, 3, "cheap", {}, {"name": "logistic", "scope": "weighted"}),
        (2, 6, False, QUERIES, {"name": "logistic", "label_weight": 0.5, "margin": 0.05}),
        (12, 1, True, {"freeze_tower": False}, {"max_loss": 5.98}),
    ],
)
def test_sharing_prompts_leaves_the_same_gradients(
    tmp_path: Path,
    bench: Callable[..., Bench],
    per_device: int,
    accumulation: int,
    again: bool | str,
    model: dict[str, object],
    objective: dict[str, object],
) -> None:
    """Against each report read on its own; one study's negative is not beside it."""
    tested = bench(per_device, accumulation, model, mutual=True, again=again, **objective)
    expected, _ = tested.by_hand(12)
    found = tested.trained(tmp_path)
    assert found.keys() == expected.keys()
    apart, whole = (
        norm({name: found[name] - sign * expected[name] for name in found}) for sign in (1, 0)
    )
    assert apart < 1e-6 * whole
    measured = means(tested.trainer.tally.take())
    assert measured["positive_grad_norm"] is measured["negative_grad_norm"] is None


@pytest.mark.parametrize(("max_loss", "times"), [(100.0, 2), (0.01, 1)])
def test_of_shared_prompts_texts_alone_are_read_and_learned_only_where_they_teach(
    tmp_path: Path, bench: Callable[..., Bench], max_loss: float, times: int
) -> None:
    tested = bench(2, 6, mutual=True, max_loss=max_loss)
    seen = []
    tested.qwen.model.language_model.layers[0].self_attn.q_proj.register_forward_hook(
        lambda _, args, __: seen.append(args[0].shape[1])
    )
    found = tested.trained(tmp_path / "shared")
    pairs = [tested.dataset[number] for number in range(12)]
    whole = [len(pair.positive.input_ids) for pair in pairs]
    # and the prompt's last token, which predicts the text's first
    texts = [int((pair.positive.labels != -100).sum()) + 1 for pair in pairs]
    # of the first study's negative, which is not beside it, the prompt too
    assert sum(seen) == sum(whole) + times * (whole[0] + sum(texts[1:]))
    if times == 1:
        without = bench(2, 6, mutual=True, beta=0.0).trained(tmp_path / "without")
        assert all(torch.equal(gradient, without[name]) for name, gradient in found.items())


@pytest.mark.parametrize("per_device", [1, 4])
def test_skipping_capped_negatives_leaves_the_same_gradients(
    tmp_path: Path, bench: Callable[..., Bench], per_device: int
) -> None:
    _, negative = bench(1, 4).by_hand(4)
    middle = float(negative.sort().values[1:3].mean())
    tested = bench(per_device, 4 // per_device, max_loss=middle)
    expected, negative = tested.by_hand(4)
    assert (negative >= middle).sum() == 2
    for name, gradient in tested.trained(tmp_path).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


class Infinite(nn.Module):
    """Makes every second answer infinite: the negatives, which come second."""

    def __init__(self, scorer: ReportScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.calls = 0

    def forward(self, batch: Batch) -> AnswerLosses:
        self.calls += 1
        losses: AnswerLosses = self.scorer(batch)
        return losses if self.calls % 2 else replace(losses, values=losses.values * math.inf)


@pytest.mark.parametrize("per_device", [1, 4])
def test_an_infinite_negative_leaves_exactly_the_positives_gradients(
    tmp_path: Path, bench: Callable[..., Bench], per_device: int
) -> None:
    with_infinite = bench(per_device, 4 // per_device)
    with_infinite.module = Infinite(with_infinite.scorer)
    without = bench(per_device, 4 // per_device, beta=0.0)
    expected = without.trained(tmp_path / "without")
    for name, gradient in with_infinite.trained(tmp_path / "with").items():
        assert torch.equal(gradient, expected[name.removeprefix("scorer.")])


def norm(gradients: Gradients) -> float:
    return math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))


def test_the_norms_of_the_branches_are_those_of_each_alone(
    tmp_path: Path, bench: Callable[..., Bench]
) -> None:
    tested = bench(4, 1)
    both = tested.trained(tmp_path / "both")
    measured = means(tested.trainer.tally.take())
    alone = bench(4, 1, beta=0.0).trained(tmp_path / "alone")
    assert measured["positive_grad_norm"] == pytest.approx(norm(alone), rel=1e-4)
    negative = {name: both[name] - alone[name] for name in both}
    assert measured["negative_grad_norm"] == pytest.approx(norm(negative), rel=1e-3)


def test_the_norm_over_micro_batches_is_their_root_mean_square(
    tmp_path: Path, bench: Callable[..., Bench]
) -> None:
    tested = bench(2, 2)
    tested.trained(tmp_path)
    order = EpochsInOrder(tested.dataset, 1, 0)
    fresh = bench(2, 1)
    squares = []
    for first in (0, 2):
        items = [order[first], order[first + 1]]
        batch = collate_pairs(items, fresh.tokenizer.pad_token_id)
        fresh.scorer.zero_grad()
        (0.8 * fresh.scorer(batch["positive"]).per_sample().mean()).backward()
        gradients = {n: p.grad for n, p in fresh.scorer.named_parameters() if p.grad is not None}
        squares.append(norm(gradients) ** 2)
    expected = math.sqrt(sum(squares) / 2)
    found = means(tested.trainer.tally.take())["positive_grad_norm"]
    assert found == pytest.approx(expected, rel=1e-4)


FINDING = torch.tensor([True, False, False])


def test_means_and_shares_over_micro_batches_of_two_processes() -> None:
    sums = torch.zeros(2, 11, dtype=torch.float64)
    for process in (0, 1):
        tally = Tally(torch.device("cpu"))
        own, other = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 6.0, math.inf])
        square = torch.tensor(9.0)
        tally.add_branch("positive", own, torch.tensor([1.5, 3.0]) + process, FINDING, square)
        ce, negative_square = torch.tensor([5.0, math.inf]), torch.tensor(16.0 * process)
        tally.add_branch("negative", other, ce, FINDING, negative_square)
        gap = torch.tensor([3.5, math.inf])
        tally.add_pair(gap, torch.tensor([False, True]), skipped=process == 0)
        sums += tally.take()
        assert tally.take().tolist() == [[0] * 11] * 2
    assert means(sums) == {
        "positive_ce": 2.75,
        "positive_finding_ce": 1.0,
        "positive_boilerplate_ce": 2.5,
        "positive_grad_norm": 3.0,
        "negative_ce": 5.0,
        "negative_finding_ce": 4.0,
        "negative_boilerplate_ce": 6.0,
        "negative_grad_norm": pytest.approx(math.sqrt(8)),
        "gap": 2.25,
        "scope_gap": 3.5,
        "share_capped": 0.5,
        "share_skipped": 0.5,
    }


def test_what_was_not_counted_is_none() -> None:
    tally, ce = Tally(torch.device("cpu")), torch.tensor([2.0])
    tally.add_branch("positive", ce, ce, FINDING[1:2], torch.tensor(9.0))
    found = means(tally.take())
    assert {name: value for name, value in found.items() if value is not None} == {
        "positive_ce": 2.0,
        "positive_boilerplate_ce": 2.0,
        "positive_grad_norm": 3.0,
    }
