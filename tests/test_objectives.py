import math

import pytest
import torch
from torch import Tensor

from ctscribe.objectives import is_capped, paper, paper_negative


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_by_hand() -> None:
    loss = paper(leaf(1.0, 3.0), leaf(2.0, 9.0), beta=0.1, max_loss=5.0, alpha=2.0)
    assert loss.item() == pytest.approx(2.0 * (1 + 3) / 2 - 0.1 * (2 + 5) / 2)


def test_gradients_in_double_precision() -> None:
    positive, negative = leaf(0.5, 2.0, 1.0), leaf(1.5, 4.0, 6.0)
    assert torch.autograd.gradcheck(
        lambda p, n: paper(p, n, beta=0.2, max_loss=5.0, alpha=0.7), (positive, negative)
    )
    loss = paper(positive, negative, beta=0.2, max_loss=5.0, alpha=0.7)
    by_positive, by_negative = torch.autograd.grad(loss, (positive, negative))
    assert by_positive.tolist() == pytest.approx([0.7 / 3] * 3)
    assert by_negative.tolist() == pytest.approx([-0.2 / 3, -0.2 / 3, 0.0])


@pytest.mark.parametrize("target_logit", [-20.0, -math.inf])
def test_a_capped_negative_leaves_exactly_the_positive_gradient(target_logit: float) -> None:
    weight = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64, requires_grad=True)

    def ce(shift: list[float]) -> Tensor:
        return -torch.log_softmax(weight + torch.tensor(shift).double(), 0)[:1]

    negative_ce = ce([target_logit, 0.0, 0.0])
    assert negative_ce.item() > 5 or math.isinf(negative_ce.item())
    whole = paper(ce([0.0] * 3), negative_ce, beta=0.1, max_loss=5.0)
    (together,) = torch.autograd.grad(whole, weight)
    (alone,) = torch.autograd.grad(ce([0.0] * 3).mean(), weight)
    assert torch.equal(together, alone)


def test_nan_is_never_hidden_by_the_cap() -> None:
    assert torch.isnan(paper(leaf(1.0), leaf(math.nan), beta=0.1, max_loss=5.0))
    assert torch.isnan(paper(leaf(math.nan), leaf(1.0), beta=0.1, max_loss=5.0))
    assert not is_capped(leaf(math.nan), 5.0).any()


def test_which_are_capped() -> None:
    assert is_capped(leaf(4.9, 5.0, math.inf), 5.0).tolist() == [False, True, True]


def test_bounded_below() -> None:
    assert paper(leaf(0.0), leaf(1e9), beta=0.1, max_loss=5.0).item() == -0.5


def test_branches_add_up() -> None:
    positive, negative = leaf(1.0, 2.0), leaf(3.0, 6.0)
    whole = paper(positive, negative, beta=0.3, max_loss=5.0, alpha=0.9)
    assert whole.item() == pytest.approx(
        (0.9 * positive.mean() + paper_negative(negative, 0.3, 5.0)).item()
    )
