"""Terms against their closed forms, and whole objectives against sums written out by hand."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctscribe.base.recipe import ObjectiveConfig
from ctscribe.learn.objective import PairLosses, Term, logistic, negative_term, pair_losses, paper

Name = Literal["paper", "logistic"]
Scope = Literal["all", "disputed", "weighted"]
NAMES, SCOPES = ("paper", "logistic"), ("all", "disputed", "weighted")

MARGIN, SCALE, CAP = 1.5, 2.0, 3.0
TERMS: dict[Name, Callable[[Tensor, Tensor], Term]] = {
    "paper": lambda _, negative: paper(negative, CAP),
    "logistic": partial(logistic, margin=MARGIN, scale=SCALE, negligible=0.0),
}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


VALUES: dict[Name, Callable[[float, float], float]] = {
    "paper": lambda _, n: -min(n, CAP),
    "logistic": lambda p, n: math.log(1 + math.exp(SCALE * (MARGIN - n + p))) / SCALE,
}
SLOPES: dict[Name, Callable[[float, float], float]] = {
    "paper": lambda _, n: -1.0 if n < CAP else 0.0,
    "logistic": lambda p, n: -sigmoid(SCALE * (MARGIN - n + p)),
}


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_the_closed_forms(name: Name) -> None:
    own, wrong = [0.4, 0.3, 1.0, 0.5], [0.9, 1.7, 2.9, 5.5]
    positive, negative = leaf(*own), leaf(*wrong)
    term = TERMS[name](positive, negative)
    pairs = list(zip(own, wrong, strict=True))
    assert term.values.tolist() == pytest.approx([VALUES[name](*pair) for pair in pairs])
    slopes = torch.autograd.grad(term.values.sum(), (positive, negative), allow_unused=True)
    assert slopes[0] is None, "no gradient reaches the positive"
    assert slopes[1] is not None
    assert slopes[1].tolist() == pytest.approx([SLOPES[name](*pair) for pair in pairs])
    assert torch.equal(term.satisfied, slopes[1] == 0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target_logit", [-800.0, -math.inf])
def test_an_impossible_answer_is_satisfied_and_leaves_no_trace(
    name: Name, target_logit: float
) -> None:
    weight = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([target_logit, 0.0, 0.0], dtype=torch.float64)
    negative = -torch.log_softmax(weight + shift, 0)[:1]
    term = TERMS[name](torch.zeros(1, dtype=torch.float64), negative)
    assert term.satisfied.all()
    assert torch.isfinite(term.values).all()
    (gradient,) = torch.autograd.grad(term.values.sum(), weight)
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_never_satisfied_and_never_hidden(name: Name) -> None:
    term = TERMS[name](leaf(1.0), leaf(math.nan))
    assert not term.satisfied.any()
    assert torch.isnan(term.values).all()


@given(negative=st.floats(0, 1e9))
def test_the_papers_term_stays_within_its_cap(negative: float) -> None:
    assert -CAP <= paper(leaf(negative), CAP).values.item() <= 0


@given(positive=st.floats(0, 5), negative=st.floats(0, 1e9))
def test_the_logistic_lies_above_its_corner_by_at_most_what_is_said(
    positive: float, negative: float
) -> None:
    smooth = TERMS["logistic"](leaf(positive), leaf(negative)).values.item()
    sharp = max(0.0, MARGIN - (negative - positive))
    assert -1e-12 <= smooth - sharp <= math.log(2) / SCALE + 1e-12


def test_a_fading_slope_counts_as_none_below_the_share_asked_for() -> None:
    just = MARGIN + math.log(99) / SCALE  # where the slope is a hundredth
    for reached, satisfied in ((just - 1e-6, False), (just + 1e-6, True)):
        negative = leaf(reached)
        term = logistic(leaf(0.0), negative, MARGIN, SCALE, 0.01)
        assert term.satisfied.item() is satisfied
        assert term.values.item() == pytest.approx(math.log(100 / 99) / SCALE, abs=1e-7)
        (slope,) = torch.autograd.grad(term.values.sum(), negative)
        assert (slope.item() == 0) is satisfied


ROWS = torch.tensor([0, 0, 0, 1, 1, 2])
POSITIVE = torch.tensor([0.1, 0.2, 0.3, 1.0, 2.0, 0.5], dtype=torch.float64)
DISPUTED = torch.tensor([False, True, True, False, True, False])


def objective(
    name: Name = "paper", scope: Scope = "all", temperature: float = 1.0
) -> ObjectiveConfig:
    return ObjectiveConfig(
        name=name, scope=scope, temperature=temperature, max_loss=CAP, margin=1.0, negligible=0.0
    )


def pair(tested: ObjectiveConfig, ce: Tensor) -> PairLosses:
    return pair_losses(tested, POSITIVE, ce, ROWS, 3, DISPUTED)


def term_of(tested: ObjectiveConfig, ce: Tensor) -> Term:
    return negative_term(tested, pair(tested, ce))


def test_the_papers_cap_acts_on_each_studys_mean() -> None:
    ce = leaf(1.0, 2.0, 9.0, 1.0, 2.0, 2.5)
    term = term_of(objective(), ce)
    assert term.values.tolist() == [-3.0, -1.5, -2.5]
    assert term.satisfied.tolist() == [True, False, False]
    (slope,) = torch.autograd.grad(term.values.mean(), ce)
    assert slope.tolist() == pytest.approx([0, 0, 0, -1 / 6, -1 / 6, -1 / 3])


def test_only_disputed_tokens_count_and_a_study_without_any_has_no_term() -> None:
    ce = leaf(50.0, 0.7, 0.6, math.inf, 2.5, 9.0)
    tested = objective("logistic", "disputed")
    losses = pair(tested, ce)
    term = negative_term(tested, losses)
    gaps = [0.65 - 0.25, 2.5 - 2.0]
    values = [math.log(1 + math.exp(2 * (1 - gap))) / 2 for gap in gaps]
    assert term.values.tolist() == pytest.approx([*values, 0.0])
    assert term.satisfied.tolist() == [False, False, True]
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    first, second = (-sigmoid(2 * (1 - gap)) for gap in gaps)
    assert slope.tolist() == pytest.approx([0, first / 2, first / 2, 0, second, 0])
    assert losses.gap().tolist() == pytest.approx([0.4, 0.5])


def test_weights_follow_what_the_scan_changes_and_carry_no_gradient() -> None:
    tested = objective("logistic", "weighted", temperature=0.5)
    ce = leaf(0.1, 0.2, 1.3, 0.0, 2.0, 0.5)
    losses = pair(tested, ce)
    expected = [0, 0, math.tanh(1.0), math.tanh(1.0), 0, 0]
    assert losses.weights.tolist() == pytest.approx(expected)
    assert not losses.weights.requires_grad
    term = negative_term(tested, losses)
    values = [math.log(1 + math.exp(2 * (1 - gap))) / 2 for gap in (1.0, -1.0)]
    assert term.values[:2].tolist() == pytest.approx(values)
    (slope,) = torch.autograd.grad(term.values.sum(), ce)
    assert slope[[0, 1, 4, 5]].tolist() == [0] * 4


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_scope_is_nothing_to_learn(name: Name) -> None:
    tested = objective(name, "disputed")
    nowhere = torch.zeros(6, dtype=torch.bool)
    losses = pair_losses(tested, POSITIVE, leaf(*[1.0] * 6), ROWS, 3, nowhere)
    term = negative_term(tested, losses)
    assert term.values.tolist() == [0.0] * 3
    assert term.satisfied.all()
    assert losses.gap().tolist() == []


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", NAMES)
def test_one_impossible_token_never_becomes_nan(name: Name, scope: Scope) -> None:
    logits = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(6, 4, dtype=torch.float64)
    shift[1, 0] = -math.inf
    ce = -torch.log_softmax(logits + shift, 1)[:, 0]
    term = term_of(objective(name, scope), ce)
    assert torch.isfinite(term.values).all()
    (gradient,) = torch.autograd.grad(term.values.mean(), logits)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_double_precision(name: Name) -> None:
    assert torch.autograd.gradcheck(
        lambda ce: term_of(objective(name, "disputed"), ce).values,
        leaf(0.5, 0.9, 0.8, 1.4, 2.3, 0.7),
    )
