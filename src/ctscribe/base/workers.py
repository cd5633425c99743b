"""Worker processes that end with their parent, and how launched processes share work."""

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
"""Number of this process, from 0, and of how many."""
ALONE: Share = (0, 1)
LOOK_EVERY_S = 1.0
SILENCE_S = 1800.0
"""Waiting for other processes ends when they have written nothing new for so long."""


@contextmanager
def worker_pool(
    count: int, begin: Callable[[], object] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of ``count`` fresh processes for the length of the block.

    They are killed when this process dies and when the block is interrupted. Otherwise they finish
    their current tasks at the end of the block; tasks that have not begun are cancelled.

    Args:
        count: Maximum number of processes.
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
    """Kills all workers of this process and waits until they have ended."""
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
    """Polls until other processes have written their parts; returns how many are missing.

    It polls because a barrier of the process group would time out: a share may take hours. The
    wait also ends after `SILENCE_S` without progress.

    Args:
        num_missing: Counts the parts that are still missing.
        tell: Called with that number whenever it falls.
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
    """As `wait_for_others`, for a file that is required to continue.

    Raises:
        CtscribeError: ``E_SHARE`` when parts are still missing after `SILENCE_S` without progress.
    """
    if wait_for_others(num_missing, lambda missing: None):
        raise CtscribeError(
            "E_SHARE",
            f"{path} must be made by several processes, but it is not whole, and nothing new came "
            "for half an hour",
        )


@final
class _Worker(SpawnProcess):
    """A process that ignores Ctrl-C from its start; its parent ends it."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _signals_delayed():
                super().start()  # inherits the mask
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signals_delayed() -> Iterator[None]:
    """Delays SIGINT and SIGTERM until the block has ended.

    Otherwise `end_workers` would miss a worker that is only half started, and that worker would
    fail with a traceback. A signal mask is not enough, since another thread may take the signal.
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
    """Starts a worker: a thread ends it when its parent dies, then ``begin`` is called."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()
    if begin is not None:
        begin()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
