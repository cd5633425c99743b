"""What a run left, and whether two left the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ctscribe.base.rows import read_rows
from ctscribe.learn.train.run_log import MetricsRow


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
