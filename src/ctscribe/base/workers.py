"""Worker processes that end with their parent, however it ends; and who speaks for many."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from threading import Thread, current_thread, main_thread
from typing import final


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


def launched() -> tuple[int, int]:
    """Which of how many processes torchrun or its like started this one as, from 0."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def own_gpu() -> str:
    """The GPU of this process among those of its machine; without a launcher the first one."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


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
