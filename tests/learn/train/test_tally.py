import math

import pytest
import torch

from ctscribe.learn.train.trainer import Tally, means

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
