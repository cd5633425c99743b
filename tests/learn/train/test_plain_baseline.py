"""Our step has the gradients of a plain Hugging Face trainer on the weights both train."""

from pathlib import Path

import pytest
import torch

from benchmarks import train_rows as rows
from benchmarks.bench_train import EQUAL_TO, Watch, compared, count_flops, require_equal
from ctscribe.learn.model.tower import encode_frames


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> rows.Preset:
    monkeypatch.setattr(rows, "NUM_SLICES", 4)
    monkeypatch.setattr(rows, "REPORT_WORDS", 50)
    # two windows by side, so that the tower has whole and cut ones
    return rows.PRESETS["tiny"]._replace(side_px=140)


def test_every_row_of_the_benchmark_has_the_plain_gradients(
    tmp_path: Path, small: rows.Preset
) -> None:
    found, operations = {}, {}
    for row in (*rows.COMPARED[:-1], *rows.ONCE[:-1]):
        trainer, stored_s = rows.make(small, row, 2, 2, tmp_path / row.name)
        assert (min(stored_s) > 0) is row.stored
        seen = Watch(trainer, 65536)
        trainer.train()
        found[row] = seen.gradients
        operations[row] = count_flops(trainer)
    plain = found[rows.PLAIN]
    for row, gradients in found.items():
        assert len(gradients) > 30
        learns = any("visual" in name for name in gradients)
        assert learns is not row.freeze_tower
        same = compared(gradients, plain)
        assert same["shared_weights"] == len(plain)
        assert same["share_of_norm_that_differs"] <= EQUAL_TO
    assert operations[rows.PLAIN_AGAIN] > operations[rows.PLAIN] > operations[rows.OURS] > 0


def test_a_row_with_other_gradients_stops_the_benchmark() -> None:
    plain = {"weight": torch.tensor([1.0, -2.0])}
    off = compared({"weight": torch.tensor([1.0, -2.00001])}, plain)
    require_equal(rows.SKIPPED, {"gradient": off})
    with pytest.raises(SystemExit, match=r"ours: the gradient differs by 4\.\de-06"):
        require_equal(rows.OURS, {"gradient": off})


def test_recomputing_layers_leaves_a_frozen_tower_without_a_graph(
    tmp_path: Path, small: rows.Preset
) -> None:
    trainer, _ = rows.make(small, rows.PLAIN_AGAIN, 1, 2, tmp_path / "run")
    frames = torch.zeros(2, 140, 140, 3, dtype=torch.uint8)
    assert not encode_frames(trainer.model, [frames]).requires_grad
