"""Worker processes that end with their parent, however it ends; and what launched ones share."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import final

from ctscribe.base.errors import CtscribeError

Share = tuple[int, int]
"""Which process, from 0, of how many."""
ALONE: Share = (0, 1)
LOOK_EVERY_S = 1.0
SILENCE_S = 1800.0
"""After so long without anything new nobody waits for other processes any more."""


@contextmanager
def worker_pool(
    count: int, begin: Callable[[], object] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """At most ``count`` fresh processes for the length of the block.

    They end when this process is killed and when the block is left by an interruption. When it
    ends otherwise they finish what they are at, and what was not begun is left.

    Args:
        count: Processes.
        begin: Called in each before its first task; importable by name.
    """
    pool = ProcessPoolExecutor(count, _Context(), initializer=_enter, initargs=(begin,))
    try:
        yield pool
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        end_workers()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def end_workers() -> None:
    """Kills all workers of this process and waits until they are gone."""
    workers = [child for child in active_children() if isinstance(child, _Worker)]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


def launched() -> Share:
    """Which of how many processes torchrun or its like started this one as, from 0."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_gpu() -> str:
    """The GPU of this process among those of its machine; without a launcher the first one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def wait_for_others(num_missing: Callable[[], int], tell: Callable[[int], None]) -> int:
    """Waits for what other processes write, by looking whether it is there; returns what is not.

    Nobody waits in a process group, whose time-out would end them: a share may take hours. Where
    nothing new comes for half an hour the wait ends too.

    Args:
        num_missing: Counts what is not there yet.
        tell: Is told that number when it falls.
    """
    missing, last = num_missing(), time.monotonic()
    while missing and time.monotonic() - last < SILENCE_S:
        time.sleep(LOOK_EVERY_S)
        before, missing = missing, num_missing()
        if missing < before:
            last = time.monotonic()
            tell(missing)
    return missing


def wait_until_whole(path: Path, num_missing: Callable[[], int]) -> None:
    """As `wait_for_others`, for a file without which nobody can go on.

    Raises:
        CtscribeError: ``E_SHARE`` where nothing new comes.
    """
    if wait_for_others(num_missing, lambda missing: None):
        raise CtscribeError(
            "E_SHARE",
            f"{path} must be made by several processes, but it is not whole, and nothing new came "
            "for half an hour",
        )


@final
class _Worker(SpawnProcess):
    """A process that Ctrl-C does not reach, from its first moment on: its parent ends it."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _held_back():
                super().start()  # inherits the mask
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _held_back() -> Iterator[None]:
    """Lets interruptions come when the block has ended.

    `end_workers` would not find a worker that is half begun, which then fails by itself, aloud. A
    mask alone does not help: any thread may take the signal that interrupts the main one.
    """
    if current_thread() is not main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for held in came:
            signal.raise_signal(held)


@final
class _Context(SpawnContext):
    Process = _Worker


def _enter(begin: Callable[[], object] | None) -> None:
    """Ends this worker when its parent is killed, instead of waiting for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()
    if begin is not None:
        begin()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
