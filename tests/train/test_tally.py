import math

import pytest
import torch

from ctscribe.train.tally import Tally, means


def test_means_and_shares_over_micro_batches_of_two_processes() -> None:
    sums = torch.zeros(8, dtype=torch.float64)
    for values in ([2.0, 4.0], [3.0]):
        tally = Tally(torch.device("cpu"))
        tally.add_positive(torch.tensor(values))
        ce = torch.tensor([6.0, math.inf][: len(values)])
        tally.add_negative(ce, ce >= 6.5, skipped=len(values) == 1)
        sums += tally.take()
        assert tally.take().tolist() == [0] * 8
    assert means(sums) == {
        "positive_ce": 3.0,
        "negative_ce": 6.0,
        "gap": 3.0,
        "share_capped": pytest.approx(1 / 3),
        "share_skipped": 0.5,
    }


def test_what_was_not_counted_is_none() -> None:
    tally = Tally(torch.device("cpu"))
    tally.add_positive(torch.tensor([2.0]))
    assert means(tally.take()) == {
        "positive_ce": 2.0,
        "negative_ce": None,
        "gap": None,
        "share_capped": None,
        "share_skipped": None,
    }
