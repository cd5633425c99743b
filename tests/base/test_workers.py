import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

POOL = """
import time
from pathlib import Path
import sys
from ctscribe.base.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        list(pool.map(time.sleep, [60, 60]))
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
