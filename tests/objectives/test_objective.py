"""The objective put together, against sums written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from ctscribe.objectives.losses import PairLosses, Scope
from ctscribe.objectives.objective import Level, Name, Objective, natural_level, term_of

ROWS = torch.tensor([0, 0, 0, 1, 1, 2])
POSITIVE = torch.tensor([0.1, 0.2, 0.3, 1.0, 2.0, 0.5], dtype=torch.float64)
DISPUTED = torch.tensor([False, True, True, False, True, False])


def negative(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def objective(
    name: Name = "paper", level: Level = "study", scope: Scope = "all", temperature: float = 1.0
) -> Objective:
    term = term_of(name, max_loss=3.0, margin=1.0, scale=2.0, negligible=0.0)
    return Objective(term, level, scope, temperature, alpha=1.0, reach="all")


def pair(tested: Objective, ce: Tensor) -> PairLosses:
    return tested.pair(POSITIVE, ce, ROWS, 3, DISPUTED)


def test_the_papers_cap_acts_on_each_studys_mean() -> None:
    ce = negative(1.0, 2.0, 9.0, 1.0, 2.0, 2.5)
    term = objective().negative(pair(objective(), ce))
    assert term.values.tolist() == [-3.0, -1.5, -2.5]
    assert term.satisfied.tolist() == [True, False, False]
    (slope,) = torch.autograd.grad(term.values.mean(), ce)
    assert slope.tolist() == pytest.approx([0, 0, 0, -1 / 6, -1 / 6, -1 / 3])


def test_the_cap_on_tokens_and_on_the_batch() -> None:
    ce = negative(1.0, 2.0, 9.0, 4.0, 5.0, 2.5)
    tested = objective(level="token")
    term = tested.negative(pair(tested, ce))
    assert term.values.tolist() == [-2.0, -3.0, -2.5]
    assert term.satisfied.tolist() == [False, True, False]
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    assert slope.tolist() == pytest.approx([-1 / 3, -1 / 3, 0, 0, 0, -1])
    tested = objective(level="batch")
    term = tested.negative(pair(tested, ce))
    assert term.satisfied.tolist() == [True] * 3, "means of 4, 4.5 and 2.5 nats are 3.7"
    term = tested.negative(pair(tested, negative(1.0, 2.0, 3.0, 4.0, 5.0, 2.0)))
    assert term.values.tolist() == pytest.approx([-(2 + 4.5 + 2) / 3] * 3)
    assert not term.satisfied.any()


def test_only_disputed_tokens_count_and_a_study_without_any_has_no_term() -> None:
    ce = negative(50.0, 0.7, 0.6, math.inf, 2.5, 9.0)
    tested = objective("hinge", scope="disputed")
    losses = pair(tested, ce)
    term = tested.negative(losses)
    assert term.values.tolist() == pytest.approx([1 - (0.65 - 0.25), 1 - 0.5, 0.0])
    assert term.satisfied.tolist() == [False, False, True]
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    assert slope.tolist() == pytest.approx([0, -0.5, -0.5, 0, -1, 0])
    assert losses.gap().tolist() == pytest.approx([0.4, 0.5])


@pytest.mark.parametrize("level", ["study", "token", "batch"])
def test_studies_out_of_scope_have_no_term_on_any_level(level: Level) -> None:
    tested = objective("hinge", level, "disputed")
    ce = negative(*[0.1] * 6)
    losses = tested.pair(POSITIVE, ce, ROWS, 3, ROWS == 2)
    term = tested.negative(losses)
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    assert term.values[:2].tolist() == [0.0, 0.0]
    assert term.satisfied.tolist() == [True, True, False]
    assert (slope != 0).tolist() == (ROWS == 2).tolist()
    assert len(losses.gap()) == 1


@pytest.mark.parametrize("level", ["study", "token", "batch"])
@pytest.mark.parametrize("name", ["paper", "hinge", "logistic", "simnpo", "unlikelihood"])
def test_nothing_in_scope_is_nothing_to_learn(name: Name, level: Level) -> None:
    tested = objective(name, level, "disputed")
    ce = negative(*[1.0] * 6)
    losses = tested.pair(POSITIVE, ce, ROWS, 3, torch.zeros(6, dtype=torch.bool))
    term = tested.negative(losses)
    assert term.values.tolist() == [0.0] * 3
    assert term.satisfied.all()
    assert losses.gap().tolist() == []


def test_weights_follow_what_the_scan_changes_and_carry_no_gradient() -> None:
    tested = objective("hinge", scope="weighted", temperature=0.5)
    ce = negative(0.1, 0.2, 1.3, 0.0, 2.0, 0.5)
    losses = pair(tested, ce)
    expected = [0, 0, math.tanh(1.0), math.tanh(1.0), 0, 0]
    assert losses.weights.tolist() == pytest.approx(expected)
    assert not losses.weights.requires_grad
    term = tested.negative(losses)
    assert term.values[:2].tolist() == pytest.approx([1 - 1.0, 1 + 1.0], abs=1e-12)
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    assert slope[[0, 1, 4, 5]].tolist() == [0] * 4


@pytest.mark.parametrize("level", ["study", "token", "batch"])
@pytest.mark.parametrize("scope", ["all", "disputed", "weighted"])
@pytest.mark.parametrize("name", ["paper", "hinge", "logistic", "simnpo", "unlikelihood"])
def test_one_impossible_token_never_becomes_nan(name: Name, level: Level, scope: Scope) -> None:
    logits = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(6, 4, dtype=torch.float64)
    shift[1, 0] = -math.inf
    ce = -torch.log_softmax(logits + shift, 1)[:, 0]
    tested = objective(name, level, scope)
    term = tested.negative(pair(tested, ce))
    assert torch.isfinite(term.values).all()
    (gradient,) = torch.autograd.grad(term.values.mean(), logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("level", ["study", "token", "batch"])
@pytest.mark.parametrize("name", ["paper", "hinge", "logistic", "simnpo", "unlikelihood"])
def test_gradients_in_double_precision(name: Name, level: Level) -> None:
    tested = objective(name, level, "disputed")
    assert torch.autograd.gradcheck(
        lambda ce: tested.negative(pair(tested, ce)).values,
        negative(0.5, 0.9, 0.8, 1.4, 2.3, 0.7),
    )


def test_unlikelihood_acts_on_tokens_unless_told_otherwise() -> None:
    assert natural_level("unlikelihood") == "token"
    assert natural_level("paper") == "study"
