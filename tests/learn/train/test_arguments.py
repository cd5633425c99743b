"""Knobs of real runs: the optimiser, who reads ahead, how long processes wait."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe, TrainConfig, read_recipe
from ctscribe.learn.pairs.dataset import Pair
from ctscribe.learn.train.arguments import training_arguments
from ctscribe.learn.train.epochs import ErrorsAsItems, collate_or_error
from tests.learn.train.runs import Train, assert_equal_runs, make_recipe, metrics, weights
from tests.refusals import refusal


def with_train(**knobs: object) -> Recipe:
    return Recipe.model_validate({"train": knobs})


def test_adafactor_learns_and_goes_on_after_an_interruption(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path]
) -> None:
    recipe = make_recipe(train={"optimizer": "adafactor"})
    run(tmp_path / "whole", pairs_of["heter"], recipe)

    def interrupt(step: int, total: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", pairs_of["heter"], recipe, progress=interrupt)
    run(tmp_path / "cut", pairs_of["heter"], recipe)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", tolerance=1e-6)
    losses = [row.positive_ce or 0.0 for row in metrics(tmp_path / "whole")]
    assert 0 < losses[-1] < losses[0]
    run(tmp_path / "adamw", pairs_of["heter"], make_recipe())
    adamw, adafactor = (weights(tmp_path / name / "best") for name in ("adamw", "whole"))
    assert not all(torch.equal(weight, adafactor[name]) for name, weight in adamw.items())


def test_an_optimiser_that_cannot_run_here_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusal("E_OPTIMIZER", "needs (bitsandbytes|a CUDA GPU), but there is none"):
        training_arguments(tmp_path, with_train(optimizer="adamw_8bit"))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with refusal("E_SHARDED", "adamw alone, but it is adafactor"):
        training_arguments(tmp_path, with_train(optimizer="adafactor"))


def test_workers_read_ahead_and_change_nothing(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path]
) -> None:
    run(tmp_path / "none", pairs_of["gauss"], make_recipe(train={"epochs": 1}))
    workers = make_recipe(train={"epochs": 1, "data_workers": 2, "prefetch": 1})
    run(tmp_path / "two", pairs_of["gauss"], workers)
    assert_equal_runs(tmp_path / "none", tmp_path / "two", tolerance=0)


class Broken:
    """Studies that cannot be read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, number: int) -> Pair:
        raise CtscribeError("E_TOO_LONG", f"all must fit, but study {number} in {os.getpid()}")


def test_an_error_in_a_worker_stays_what_it_is() -> None:
    loader = DataLoader(
        ErrorsAsItems(Broken()),
        batch_size=2,
        num_workers=1,
        collate_fn=lambda items: collate_or_error(items, pad_id=0),
    )
    (error,) = loader
    assert isinstance(error, CtscribeError)
    assert error.code == "E_TOO_LONG"
    assert str(os.getpid()) not in str(error)


def test_the_time_out_is_the_recipes(tmp_path: Path) -> None:
    assert training_arguments(tmp_path, with_train(time_out_minutes=5)).ddp_timeout == 300
    assert training_arguments(tmp_path, Recipe()).ddp_timeout == 3600


def test_a_run_goes_on_with_other_values_of_what_changes_no_result(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path]
) -> None:
    train = {"epochs": 1}
    done = run(tmp_path, pairs_of["origin"], make_recipe(train=train))
    others = {"data_workers": 1, "prefetch": 3, "time_out_minutes": 90}
    assert run(tmp_path, pairs_of["origin"], make_recipe(train={**train, **others})) == done
    with refusal("E_RUN_EXISTS", r"differs in recipe\.train\.optimizer"):
        other = make_recipe(train={**train, "optimizer": "adafactor"})
        run(tmp_path, pairs_of["origin"], other)


def test_what_does_not_go_together_is_refused() -> None:
    with refusal("E_RECIPE", "data_workers above 0 needs another pairs.strategy than hard"):
        read_recipe("tiny", ("pairs.strategy=hard", "train.data_workers=2"))
    with refusal("E_RECIPE", "auto needs model.freeze_tower: true"):
        read_recipe("tiny", ("model.freeze_tower=false", "train.gradient_checkpointing=auto"))
    assert "optimizer" not in TrainConfig().as_asked()
