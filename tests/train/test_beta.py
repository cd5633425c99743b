from pathlib import Path

import pytest

from ctscribe.objectives.beta import Schedule
from ctscribe.train.beta import BetaControl


def control(schedule: Schedule, checkpoint: Path | None = None) -> BetaControl:
    return BetaControl(schedule, 0.1, 5, 1.0, checkpoint)


def test_a_constant_weight_ignores_what_happens() -> None:
    tested = control("constant")
    tested.learn(9.0)
    assert [tested.at(step) for step in (0, 100)] == [0.1, 0.1]


def test_a_warm_up_needs_no_memory(tmp_path: Path) -> None:
    before = control("warmup")
    before.save(tmp_path)
    after = control("warmup", tmp_path)
    assert [after.at(step) for step in (0, 4, 9)] == pytest.approx([0.02, 0.1, 0.1])


def test_a_steered_weight_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, cut = control("steered"), control("steered")
    for gap in (0.1, 0.4, 3.0):
        whole.learn(gap)
        cut.learn(gap)
    cut.save(tmp_path)
    cut = control("steered", tmp_path)
    for tested in (whole, cut):
        tested.learn(0.2)
        tested.learn(None)
    assert whole.at(6) == cut.at(6) != 0.1
