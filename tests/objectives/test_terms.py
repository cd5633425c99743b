"""Values, slopes and bounds of every term, in double precision against the closed forms."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctscribe.objectives.terms import Term, hinge, logistic, paper, simnpo, unlikelihood

POSITIVE = [0.4, 0.3, 1.0, 0.5]
NEGATIVE = [0.9, 1.7, 2.9, 5.5]
MARGIN, SCALE, CAP = 1.5, 2.0, 3.0
TermOf = Callable[[Tensor, Tensor], Term]
TERMS: dict[str, TermOf] = {
    "paper": lambda _, negative: paper(negative, CAP),
    "hinge": partial(hinge, margin=MARGIN),
    "logistic": partial(logistic, margin=MARGIN, scale=SCALE, negligible=0.0),
    "simnpo": lambda _, negative: simnpo(negative, MARGIN, SCALE, 0.0),
    "unlikelihood": lambda _, negative: unlikelihood(negative, 0.0),
}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


VALUES: dict[str, Callable[[float, float], float]] = {
    "paper": lambda _, n: -min(n, CAP),
    "hinge": lambda p, n: max(0.0, MARGIN - (n - p)),
    "logistic": lambda p, n: math.log(1 + math.exp(SCALE * (MARGIN - n + p))) / SCALE,
    "simnpo": lambda _, n: 2 * math.log(1 + math.exp(SCALE * (MARGIN - n))) / SCALE,
    "unlikelihood": lambda _, n: -math.log(1 - math.exp(-n)),
}
SLOPES: dict[str, Callable[[float, float], float]] = {
    "paper": lambda _, n: -1.0 if n < CAP else 0.0,
    "hinge": lambda p, n: -1.0 if n - p < MARGIN else 0.0,
    "logistic": lambda p, n: -sigmoid(SCALE * (MARGIN - n + p)),
    "simnpo": lambda _, n: -2 * sigmoid(SCALE * (MARGIN - n)),
    "unlikelihood": lambda _, n: -math.exp(-n) / (1 - math.exp(-n)),
}


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", TERMS)
def test_values_and_slopes_are_the_closed_forms(name: str) -> None:
    positive, negative = leaf(*POSITIVE), leaf(*NEGATIVE)
    term = TERMS[name](positive, negative)
    pairs = list(zip(POSITIVE, NEGATIVE, strict=True))
    assert term.values.tolist() == pytest.approx([VALUES[name](*pair) for pair in pairs])
    slopes = torch.autograd.grad(term.values.sum(), (positive, negative), allow_unused=True)
    assert slopes[0] is None, "no gradient reaches the positive"
    assert slopes[1] is not None
    assert slopes[1].tolist() == pytest.approx([SLOPES[name](*pair) for pair in pairs])
    assert torch.equal(term.satisfied, slopes[1] == 0)


@pytest.mark.parametrize("name", TERMS)
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    positive = torch.tensor(POSITIVE, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda n: TERMS[name](positive, n).values, leaf(*NEGATIVE))


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("target_logit", [-800.0, -math.inf])
def test_an_impossible_answer_is_satisfied_and_leaves_no_trace(
    name: str, target_logit: float
) -> None:
    weight = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([target_logit, 0.0, 0.0], dtype=torch.float64)
    negative = -torch.log_softmax(weight + shift, 0)[:1]
    term = TERMS[name](torch.zeros(1, dtype=torch.float64), negative)
    assert term.satisfied.all()
    assert torch.isfinite(term.values).all()
    (gradient,) = torch.autograd.grad(term.values.sum(), weight)
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", TERMS)
def test_nan_is_never_satisfied_and_never_hidden(name: str) -> None:
    term = TERMS[name](leaf(1.0), leaf(math.nan))
    assert not term.satisfied.any()
    assert torch.isnan(term.values).all()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("paper", -CAP, 0.0),
        ("hinge", 0.0, MARGIN + 5.0),
        ("logistic", 0.0, math.inf),
        ("simnpo", 0.0, math.inf),
        ("unlikelihood", 0.0, 11.52),
    ],
)
@given(positive=st.floats(0, 5), negative=st.floats(0, 1e9))
def test_bounds(name: str, low: float, high: float, positive: float, negative: float) -> None:
    value = TERMS[name](leaf(positive), leaf(negative)).values.item()
    assert low <= value <= high


@given(positive=st.floats(0, 5), negative=st.floats(0, 30))
def test_the_logistic_lies_above_the_hinge_by_at_most_its_corner(
    positive: float, negative: float
) -> None:
    smooth, sharp = (
        TERMS[name](leaf(positive), leaf(negative)).values.item() for name in ("logistic", "hinge")
    )
    assert -1e-12 <= smooth - sharp <= math.log(2) / SCALE + 1e-12


def test_a_fading_slope_counts_as_none_below_the_share_asked_for() -> None:
    just = MARGIN + math.log(99) / SCALE  # where the slope is a hundredth
    for reached, satisfied in ((just - 1e-6, False), (just + 1e-6, True)):
        for term in (
            logistic(leaf(0.0), leaf(reached), MARGIN, SCALE, 0.01),
            simnpo(leaf(reached), MARGIN, SCALE, 0.01),
        ):
            assert term.satisfied.item() is satisfied
    for reached, satisfied in ((math.log(100) - 1e-6, False), (math.log(100) + 1e-6, True)):
        negative = leaf(reached)
        term = unlikelihood(negative, 0.01)
        assert term.satisfied.item() is satisfied
        assert term.values.item() == pytest.approx(-math.log(0.99), abs=1e-7)
        (slope,) = torch.autograd.grad(term.values.sum(), negative)
        assert (slope.item() == 0) is satisfied


def test_a_certain_word_is_pushed_on_its_logit_with_all_its_probability() -> None:
    for gap in (0.0, 3.0, 9.0):
        logits = torch.tensor([gap, 0.0], dtype=torch.float64, requires_grad=True)
        ce = -torch.log_softmax(logits, 0)[:1]
        (push,) = torch.autograd.grad(unlikelihood(ce, 0.0).values.sum(), logits)
        assert push[0].item() == pytest.approx(math.exp(-ce.item()), rel=1e-6)
    certain = torch.tensor([0.0], requires_grad=True)
    (push,) = torch.autograd.grad(unlikelihood(certain, 0.0).values.sum(), certain)
    assert torch.isfinite(push).all()
