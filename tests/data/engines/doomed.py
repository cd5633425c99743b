"""Functions that workers of the tests import: some of them die."""

import os
import signal
import time
from pathlib import Path

from ctscribe.base.errors import CtscribeError


def double(task: tuple[Path, int]) -> int:
    """Twice the number."""
    return 2 * task[1]


def refuse(task: tuple[Path, int]) -> int:
    """What no volume can help."""
    raise CtscribeError("E_WRITE", f"{task[1]} must be written")


def die(task: tuple[Path, int]) -> int:
    """Dies at 3 always, at 4 the first time, as if memory had run out; else as `double`."""
    folder, number = task
    with (folder / str(number)).open("a") as file:
        file.write("x")
    attempts = (folder / str(number)).stat().st_size
    if number == 3 or (number == 4 and attempts == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def count_at_work(task: tuple[Path, int]) -> int:
    """How many are at work at the end of this one, itself included.

    The first wait until there are as many as the folder's name says, for half a minute at most.
    """
    folder, number = task
    mine, met = folder / str(number), folder.with_name("met")
    mine.touch()
    until = time.monotonic() + 30
    while len(list(folder.iterdir())) < int(folder.name) and not met.exists():
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    met.touch()
    time.sleep(0.2)
    count = len(list(folder.iterdir()))
    mine.unlink()
    return count


def slowly(task: tuple[Path, int]) -> int:
    """Notes on which node and as which process it runs, then as `double` after a while.

    Whoever sees the note reads all of it: it gets its name when it is written.
    """
    import ray

    folder, number = task
    node = ray.get_runtime_context().get_node_id()
    unfinished = folder / f"unfinished.{os.getpid()}"  # no dash, so that no pattern finds it
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(folder / f"{number}-{node}")
    time.sleep(3)
    return 2 * number


def lost(task: tuple[Path, int]) -> int:
    """Told of a task whose worker died twice."""
    return -task[1]
