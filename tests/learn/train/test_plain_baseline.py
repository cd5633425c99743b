"""Our step has the gradients of a plain Hugging Face trainer on the weights both train."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def test_every_row_of_the_benchmark_has_the_plain_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module("train_rows")
    watch = importlib.import_module("train_watch")
    monkeypatch.setattr(rows, "NUM_SLICES", 4)
    monkeypatch.setattr(rows, "REPORT_TOKENS", 60)
    # two windows by side, so that the tower has whole and cut ones
    preset = replace(rows.PRESETS["tiny"], side_px=140)
    found, operations = {}, []
    for row in (rows.ROWS[0], rows.ROWS[-4], rows.ROWS[-2]):
        bench = rows.make(preset, row, 2, 2, tmp_path / row.name)
        seen = watch.Watch(bench.trainer, 65536)
        bench.trainer.train()
        found[row.name] = seen.gradients
        operations.append(watch.count_flops(bench.trainer))
    assert operations[0] > operations[1] > operations[2] > 0
    plain = found.pop("plain")
    assert any("visual" in name for name in plain)
    assert not any("visual" in name for name in found["ours, nothing skipped"])
    for gradients in found.values():
        assert len(gradients) > 30
        assert gradients.keys() <= plain.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-3)
