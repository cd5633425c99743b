"""Which weights learn, at which rate and in which precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2MLP

from tests.learn.train.runs import Train, assert_equal_runs, make_recipe, weights


@pytest.mark.parametrize("freeze_tower", [True, False])
def test_the_tower_learns_only_when_asked_to(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path, freeze_tower: bool
) -> None:
    recipe = make_recipe(model={"freeze_tower": freeze_tower}, train={"epochs": 1})
    run(tmp_path / "run", pairs_of["gauss"], recipe)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("model.layers") for name in changed)
    tower = {name for name in before if name.startswith("visual.")}
    assert tower
    assert bool(changed & tower) is not freeze_tower
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert any(".visual." in name for name in saved) is not freeze_tower


def test_tower_and_merger_learn_apart_at_their_own_rates(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    before = weights(start)
    rates = {"learning_rate": 1e-3, "tower_learning_rate": 1e-5, "merger_learning_rate": 1e-4}
    for tower, merger in ((True, False), (False, True), (False, False)):
        model = {"freeze_tower": tower, "freeze_merger": merger}
        folder = tmp_path / f"{tower}-{merger}"
        train_ = {"epochs": 1, **rates, "gradient_accumulation_steps": 12, "warmup_ratio": 0.0}
        run(folder, pairs_of["heter"], make_recipe(model=model, train=train_))
        after = weights(folder / "best")
        moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
        parts = {
            "merger": max(moved[n] for n in moved if n.startswith("visual.merger.")),
            "blocks": max(moved[n] for n in moved if n.startswith("visual.blocks.")),
            "language": max(moved[n] for n in moved if n.startswith("model.layers.")),
        }
        # AdamW's first update moves a weight by its learning rate
        assert parts["merger"] == pytest.approx(0 if merger else 1e-4, rel=0.02)
        assert parts["blocks"] == pytest.approx(0 if tower else 1e-5, rel=0.02)
        assert parts["language"] == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize("what", [True, "cheap"])
def test_checkpointed_activations_run_twice_and_change_no_loss(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], what: bool | str
) -> None:
    mlps, products = [], []
    for name, asked in (("kept", False), ("again", what)):
        knobs = {"epochs": 1, "gradient_checkpointing": asked}
        recipe = make_recipe(model={"freeze_tower": False}, train=knobs)
        with FlopCounterMode(display=False) as counter, counted_mlps() as passes:
            run(tmp_path / name, pairs_of["heter"], recipe)
        mlps.append(len(passes))
        products.append(counter.get_total_flops())
    assert mlps[1] > mlps[0]
    assert (products[1] == products[0]) is (what == "cheap")
    assert_equal_runs(tmp_path / "kept", tmp_path / "again", tolerance=1e-5)


@contextmanager
def counted_mlps() -> Iterator[list[None]]:
    """One entry for each time that an MLP of the language model runs meanwhile."""
    passes: list[None] = []
    real = Qwen2MLP.forward

    def forward(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        passes.append(None)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen2MLP, "forward", forward)
        yield passes


def test_adapters_touch_the_language_side_alone(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    recipe = make_recipe(
        model={"tuning": "lora", "lora_r": 4, "lora_alpha": 8}, train={"epochs": 1}
    )
    run(tmp_path / "run", pairs_of["heter"], recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert all(".language_model.layers." in name and ".lora_" in name for name in saved)
    before, after = weights(start), weights(tmp_path / "run" / "best")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("_proj.weight") and "layers" in name for name in changed)


def test_bfloat16_keeps_learning_weights_in_full(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], start: Path
) -> None:
    recipe = make_recipe(model={"dtype": "bfloat16"}, train={"epochs": 1, "learning_rate": 1e-5})
    run(tmp_path / "run", pairs_of["origin"], recipe)
    saved = weights(tmp_path / "run" / "checkpoint-3")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    norm = next(
        weight for name, weight in saved.items() if name.endswith("language_model.norm.weight")
    )
    assert not torch.equal(norm, torch.ones_like(norm))
    assert (norm - 1).abs().max() < 1e-4
