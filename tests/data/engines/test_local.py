import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.data.engines import local

Tasks = list[tuple[Path, int]]


def need_bytes(task: tuple[Path, int]) -> int:
    return 100


def numbered(folder: Path, count: int) -> Tasks:
    folder.mkdir(exist_ok=True)
    return [(folder, number) for number in range(count)]


@pytest.mark.parametrize("processes", [1, 2, None])
def test_each_task_gives_its_result(
    tmp_path: Path, doomed: ModuleType, processes: int | None
) -> None:
    tasks = numbered(tmp_path, 7)
    work = local.work(doomed.double, tasks, processes, lost=doomed.lost, need_bytes=need_bytes)
    assert sorted(work) == [0, 2, 4, 6, 8, 10, 12]
    assert not list(local.work(doomed.double, [], 2, lost=doomed.lost, need_bytes=need_bytes))


def test_only_the_task_that_kills_again_is_lost(tmp_path: Path, doomed: ModuleType) -> None:
    tasks = numbered(tmp_path, 8)
    work = local.work(doomed.die, tasks, 2, lost=doomed.lost, need_bytes=need_bytes)
    assert sorted(work) == [-3, 0, 2, 4, 8, 10, 12, 14]
    attempts = {int(path.name): path.stat().st_size for path in tmp_path.iterdir()}
    assert attempts[3] >= 2
    assert attempts[4] == 2


def test_what_stops_every_volume_stops_the_run(tmp_path: Path, doomed: ModuleType) -> None:
    work = local.work(
        doomed.refuse, numbered(tmp_path, 9), 2, lost=doomed.lost, need_bytes=need_bytes
    )
    with pytest.raises(CtscribeError) as caught:
        list(work)
    assert caught.value.code == "E_WRITE"


@pytest.mark.parametrize(("budget", "most"), [(1000, 3), (250, 2), (50, 1), (None, 3)])
def test_as_many_at_once_as_memory_holds(
    tmp_path: Path,
    doomed: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    budget: int | None,
    most: int,
) -> None:
    free = None if budget is None else round(budget / 0.8)
    monkeypatch.setattr(local, "available_bytes", lambda: free)
    tasks = numbered(tmp_path / str(most), 6)
    work = local.work(doomed.count_at_work, tasks, 3, lost=doomed.lost, need_bytes=need_bytes)
    assert max(work) == most


def test_workers_end_with_the_driver(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import time\nfrom ctscribe.data.engines import local\n"
        "if __name__ == '__main__':\n"
        "    list(local.work(time.sleep, [60, 60], 2, lost=abs, need_bytes=abs))\n"
    )
    driver = subprocess.Popen([sys.executable, str(script)])
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    while len(workers := children.read_text().split()) < 3:  # the third tracks resources
        assert driver.poll() is None, "the driver ended before its workers began"
        time.sleep(0.05)
    time.sleep(1)
    driver.kill()
    driver.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, "a worker waits for tasks for ever"
        time.sleep(0.05)
