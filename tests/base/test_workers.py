import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.base.workers import own_gpu

POOL = """
import signal
import time
from ctscribe.base.workers import worker_pool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this may ignore it
    with worker_pool(2) as pool:
        list(pool.map(time.sleep, [60, 60]))
"""
INTERRUPTED = """
import os
import signal
import sys
import time
from multiprocessing import util
from ctscribe.base.workers import worker_pool

def begin_and_interrupt(path, arguments, descriptors):
    began = begin(path, arguments, descriptors)
    if any("spawn_main" in str(argument) for argument in arguments):
        os.kill(os.getpid(), int(sys.argv[1]))  # before the worker has been told what to do
    return began

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever starts this may ignore them
        signal.signal(number, signal.default_int_handler)
    begin, util.spawnv_passfds = util.spawnv_passfds, begin_and_interrupt
    try:
        with worker_pool(1) as pool:
            pool.submit(time.sleep, 60)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""
PHANTOM = (
    *("phantom", "--processes", "2", "--set", "phantom.num_train_patients=40"),
    *("--set", "phantom.num_valid_patients=1"),
)


def started(command: list[str]) -> tuple["subprocess.Popen[str]", list[str]]:
    """A process in a group of its own, and its children once two workers and the tracker run."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(workers := children.read_text().split()) < 3:
        assert process.poll() is None, "it ended before its workers began"
        time.sleep(0.02)
    return process, workers


def assert_gone(workers: list[str]) -> None:
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, "a worker outlives its parent"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(POOL)
    process, workers = started([sys.executable, str(script)])
    time.sleep(1)
    process.send_signal(number)
    process.communicate()
    assert_gone(workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_waits_until_a_worker_has_begun(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, str(script), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted\n", "", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by another process"),
    ],
)
@pytest.mark.parametrize("whom", [os.kill, os.killpg])
def test_an_interrupted_command_says_one_sentence_and_leaves_nobody(
    tmp_path: Path, whom: Callable[[int, int], None], number: signal.Signals, status: int, told: str
) -> None:
    out = tmp_path / "out"
    process, workers = started([sys.executable, "-m", "ctscribe.cli", *PHANTOM, str(out)])
    whom(process.pid, number)
    said = process.communicate()[1].splitlines()
    assert process.returncode == status
    assert [line for line in said if "patients" not in line] == [
        f"ctscribe: {told}; run the same command again to continue"
    ]
    assert_gone(workers)
    assert not [*out.rglob(".lock"), *out.rglob("*.part")]


def test_each_launched_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_gpu() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_gpu() == "cuda:3"
