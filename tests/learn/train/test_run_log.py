from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from ctscribe.base.rows import read_rows
from ctscribe.learn.train.run_log import EVENTS, MetricsRow, RunLog, draw_loss_curve


def row(step: int, **values: float) -> MetricsRow:
    fields = {"learning_rate": 0.1, "grad_norm": 1.0, "positive_ce": 3.0 / step, "epoch": 1.0}
    empty = dict.fromkeys(("negative_ce", "gap", "share_capped", "share_skipped"))
    return MetricsRow.model_validate({"step": step, **fields, **empty, **values})


def events(run: Path) -> list[tuple[int, set[str]]]:
    loaded = EventFileLoader(str(run / "tensorboard" / EVENTS)).Load()
    return [(e.step, {v.tag for v in e.summary.value}) for e in loaded if e.summary.value]


def test_rows_reach_the_disk_in_dozens(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, MetricsRow)
    for step in range(1, 41):
        log.add(row(step))
    assert len(read_rows(tmp_path / "metrics.jsonl", MetricsRow)) == 25
    log.flush()
    log.flush()
    assert read_rows(tmp_path / "metrics.jsonl", MetricsRow) == log.rows
    assert [step for step, _ in events(tmp_path)] == list(range(1, 41))


def test_an_interrupted_log_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, MetricsRow)
    for step in range(1, 9):
        log.add(row(step))
    log.flush()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "ep')
    log = RunLog(tmp_path, after_step=5, row_type=MetricsRow)
    log.add(row(6, negative_ce=4.0, gap=1.0))
    log.flush()
    written = read_rows(tmp_path / "metrics.jsonl", MetricsRow)
    assert [r.step for r in written] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in events(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert {"train/gap", "train/positive_ce", "train/grad_norm"} <= events(tmp_path)[-1][1]
    assert "train/gap" not in events(tmp_path)[0][1]


@pytest.mark.parametrize("validated", [False, True])
def test_the_curve_is_drawn_from_what_there_is(tmp_path: Path, validated: bool) -> None:
    log = RunLog(tmp_path, 0, MetricsRow)
    extra = {"validation_ce": 2.0, "validation_other_ce": 2.5} if validated else {}
    for step in range(1, 5):
        log.add(row(step, **extra))
    draw_loss_curve(log.rows, tmp_path / "loss_curve.png")
    with Image.open(tmp_path / "loss_curve.png") as picture:
        assert picture.size == (1120, 640)
