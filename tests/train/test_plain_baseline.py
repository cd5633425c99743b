"""Our step has the gradients of a plain Hugging Face trainer on the weights both train."""

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_row_of_the_benchmark_has_the_plain_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module("train_rows")
    watch = importlib.import_module("train_watch")
    found = {}
    for row in (rows.ROWS[0], rows.ROWS[2], rows.ROWS[-1]):
        bench = rows.make(rows.PRESETS["tiny"], row, 2, 2, tmp_path / row.name)
        seen = watch.Watch(bench.trainer, 65536)
        bench.trainer.train()
        assert seen.flops > 0
        found[row.name] = seen.gradients
    plain = found.pop("plain")
    assert any("visual" in name for name in plain)
    assert not any("visual" in name for name in found["ours"])
    for gradients in found.values():
        assert len(gradients) > 30
        assert gradients.keys() <= plain.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-3)
