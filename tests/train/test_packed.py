"""Both branches of a micro-batch in one row."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ctscribe.errors import CtscribeError
from ctscribe.rows import PairRow, read_rows
from ctscribe.train.setup import (
    require_reach,
)
from tests.train.bench import Bench


@pytest.mark.parametrize("objective", [{}, {"name": "logistic", "scope": "disputed"}])
def test_a_packed_pair_has_the_gradients_of_its_branches_apart(
    tmp_path: Path, bench: Callable[..., Bench], objective: dict[str, object]
) -> None:
    apart = bench(2, 2, **objective).trained(tmp_path / "apart")
    packed = bench(2, 2, packed=True, **objective).trained(tmp_path / "packed")
    assert packed.keys() == apart.keys()
    for name, gradient in apart.items():
        torch.testing.assert_close(packed[name], gradient, atol=1e-6, rtol=1e-4)


def test_packed_a_volume_shown_twice_goes_through_the_learning_tower_once(
    tmp_path: Path, bench: Callable[..., Bench]
) -> None:
    """All twelve pairs at once: every negative is the own volume of another of them."""
    apart, packed = (bench(12, 1, packed=packed, freeze_tower=False) for packed in (False, True))
    shown = {row.volume for row in read_rows(packed.pairs, PairRow)}
    seen: list[int] = []
    tower = packed.qwen.model.visual
    tower.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    expected = apart.trained(tmp_path / "apart")
    found = packed.trained(tmp_path / "packed")
    patches = 2 * 4 * 4  # of one volume: two slice pairs of 56 × 56
    assert seen == [patches * len(shown)]
    assert any(".visual.blocks." in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_packed_branches_cannot_be_told_apart(bench: Callable[..., Bench]) -> None:
    asked = bench(2, 2, packed=True, reach="language")
    with pytest.raises(CtscribeError, match=r"pack_pairs is true.*E_REACH"):
        require_reach(asked.recipe)
