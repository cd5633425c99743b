from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.engines import slurm
from ctscribe.data.engines.engine import Engine
from ctscribe.data.prepare import prepare
from tests.outputs import hashes


def need_bytes(task: tuple[Path, int]) -> int:
    return 10**9


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    work: Any = slurm.work
    return partial(work, folder=tmp_path / "jobs", cluster="local")


def test_jobs_share_the_tasks_and_leave_nothing(
    tmp_path: Path, doomed: ModuleType, engine: Engine
) -> None:
    tasks = [(tmp_path, number) for number in range(5)]
    assert sorted(engine(doomed.double, tasks, 1, lost=doomed.lost, need_bytes=need_bytes)) == [
        0,
        2,
        4,
        6,
        8,
    ]
    assert not (tmp_path / "jobs").exists()


def test_only_the_task_that_kills_again_is_lost(
    tmp_path: Path, doomed: ModuleType, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 0)
    monkeypatch.setattr(slurm, "_SHARES_PER_PROCESS", 2)
    (tmp_path / "seen").mkdir()
    tasks = [(tmp_path / "seen", number) for number in range(1, 6)]
    assert sorted(engine(doomed.die, tasks, 1, lost=doomed.lost, need_bytes=need_bytes)) == [
        -3,
        2,
        4,
        8,
        10,
    ]
    assert list((tmp_path / "jobs").rglob("*.err")), "logs stay where a job died"


def test_what_stops_every_volume_stops_the_run(
    tmp_path: Path, doomed: ModuleType, engine: Engine
) -> None:
    with pytest.raises(CtscribeError, match="3 must be written") as caught:
        list(engine(doomed.refuse, [(tmp_path, 3)], 1, lost=doomed.lost, need_bytes=need_bytes))
    assert caught.value.code == "E_WRITE"


def test_prepared_volumes_are_the_same_and_done_once(
    tmp_path: Path,
    engine: Engine,
    scans: Path,
    knobs: tuple[VolumeConfig, SlicesConfig],
    undisturbed: dict[str, str],
) -> None:
    out = tmp_path / "out"
    assert prepare(scans, out, *knobs, engine=engine, processes=1).num_prepared == 12
    assert hashes(out) == undisturbed
    assert prepare(scans, out, *knobs, engine=engine, processes=1).num_reused == 12


@pytest.mark.parametrize(
    ("count", "processes", "shares"), [(3, 2, 3), (100, 2, 8), (50_188, None, 1000), (0, 2, 0)]
)
def test_shares_fit_an_array(count: int, processes: int | None, shares: int) -> None:
    found = slurm._shares(range(count), processes)
    assert len(found) == shares
    assert sorted(task for share in found for task in share) == list(range(count))
    assert max(map(len, found), default=0) - min(map(len, found), default=0) <= 1
