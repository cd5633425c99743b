"""A recipe to run, what its run left, and whether two left the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ctscribe.base.recipe import Recipe, SplitsConfig
from ctscribe.base.rows import read_rows
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.learn.train.stage import TrainResult

SPLITS = SplitsConfig(validation_fraction=0.2)
Train = Callable[..., TrainResult]


def make_recipe(strategy: str = "origin", **sections: dict[str, Any]) -> Recipe:
    """Two epochs over four small slices, with changes by section."""
    tree: dict[str, dict[str, Any]] = {
        "pairs": {"strategy": strategy},
        "splits": SPLITS.model_dump(),
        "model": {"positions": "depth", "dtype": "float32"},
        "slices": {"num_slices": 4, "frame_size_px": (56, 56)},
        "objective": {"beta": 0.1, "max_loss": 8.0},
        "train": {
            "learning_rate": 1e-3,
            "epochs": 2,
            "gradient_accumulation_steps": 4,
            "checkpoints_per_epoch": 1,
        },
    }
    for section, knobs in sections.items():
        tree.setdefault(section, {}).update(knobs)
    return Recipe.model_validate(tree)


def metrics(folder: Path) -> list[MetricsRow]:
    return read_rows(folder / "metrics.jsonl", MetricsRow)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal_runs(first: Path, second: Path, tolerance: float) -> None:
    rows = [metrics(first), metrics(second)]
    assert len(rows[0]) == len(rows[1])
    for one, other in zip(*rows, strict=True):
        values = [row.model_dump(exclude_none=True) for row in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=tolerance, rel=tolerance)
    one_model, other_model = weights(first / "best"), weights(second / "best")
    for name, weight in one_model.items():
        torch.testing.assert_close(weight, other_model[name], atol=tolerance, rtol=0)
