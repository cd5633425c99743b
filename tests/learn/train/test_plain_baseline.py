"""Our step has the gradients of a plain Hugging Face trainer on the weights both train."""

from pathlib import Path

import pytest
import torch

from benchmarks import train_rows as rows
from benchmarks.bench_train import Watch, count_flops


def test_every_row_of_the_benchmark_has_the_plain_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "NUM_SLICES", 4)
    monkeypatch.setattr(rows, "REPORT_WORDS", 50)
    # two windows by side, so that the tower has whole and cut ones
    preset = rows.PRESETS["tiny"]._replace(side_px=140)
    found, operations = {}, []
    for row in (rows.PLAIN, rows.ROWS[5], rows.OURS):
        trainer, _ = rows.make(preset, row, 2, 2, tmp_path / row.name)
        seen = Watch(trainer, 65536)
        trainer.train()
        found[row.name] = seen.gradients
        operations.append(count_flops(trainer))
    assert operations[0] > operations[1] > operations[2] > 0
    plain = found.pop("plain")
    assert any("visual" in name for name in plain)
    assert not any("visual" in name for name in found["ours, nothing skipped"])
    for gradients in found.values():
        assert len(gradients) > 30
        assert gradients.keys() <= plain.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, plain[name], atol=1e-5, rtol=1e-3)
