"""One machine: a process per core, as many at once as memory allows."""

import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from ctscribe.base.workers import worker_pool
from ctscribe.data.engines.engine import Result, Task

_MEMORY_SHARE = 0.8
"""Share of the memory free at the start that tasks may take."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def work(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int | None,
    *,
    lost: Callable[[Task], Result],
    need_bytes: Callable[[Task], int],
) -> Iterator[Result]:
    """See `Engine`; with one process or one task, the work is done in the calling process.

    When a worker dies, the tasks that were running are repeated one by one, each in a process of
    its own, so that innocent ones succeed. A task is lost when it ends its process twice there.
    """
    count = min(processes or os.cpu_count() or 1, len(tasks))
    if count <= 1:
        yield from map(function, tasks)
        return
    waiting = deque(tasks)
    budget = available_bytes()
    while waiting:
        suspects = yield from _until_one_dies(
            function, waiting, count, need_bytes, None if budget is None else _MEMORY_SHARE * budget
        )
        for task in suspects:
            yield _alone(function, task, lost)


def _until_one_dies(
    function: Callable[[Task], Result],
    waiting: deque[Task],
    count: int,
    need_bytes: Callable[[Task], int],
    budget: float | None,
) -> Generator[Result, None, list[Task]]:
    """Works on ``waiting`` until it is empty or a process dies; returns tasks that ran then."""
    suspects: list[Task] = []
    at_work: dict[Future[Result], Task] = {}
    with worker_pool(count) as pool:
        while (waiting or at_work) and not suspects:
            while waiting and _fits(waiting[0], at_work, count, need_bytes, budget):
                task = waiting.popleft()
                try:
                    at_work[pool.submit(function, task)] = task
                except BrokenProcessPool:
                    waiting.appendleft(task)
                    break
            ready, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in ready:
                task = at_work.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    suspects.append(task)
                else:
                    yield future.result()
        suspects += at_work.values()
    return suspects


def _fits(
    task: Task,
    at_work: dict["Future[Result]", Task],
    count: int,
    need_bytes: Callable[[Task], int],
    budget: float | None,
) -> bool:
    """Whether memory and processes suffice for one more task; the first always starts."""
    if not at_work or budget is None:
        return len(at_work) < count
    taken = sum(map(need_bytes, at_work.values()))
    return len(at_work) < count and taken + need_bytes(task) <= budget


def _alone(
    function: Callable[[Task], Result], task: Task, lost: Callable[[Task], Result]
) -> Result:
    for _ in range(2):
        with worker_pool(1) as pool, suppress(BrokenProcessPool):
            return pool.submit(function, task).result()
    return lost(task)


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Memory that the machine, or the container's limit, has available; None if unknown.

    Sources: MemAvailable of proc(5); memory.max and memory.stat of the kernel's cgroup v2.
    """
    machine = _number(meminfo, r"^MemAvailable:\s+(\d+) kB")
    limit = _number(cgroup / "memory.max", r"^(\d+)$")
    free = [] if machine is None else [1024 * machine]
    if limit is not None:
        free.append(max(0, limit - (_number(cgroup / "memory.stat", r"^anon (\d+)") or 0)))
    return min(free, default=None)


def _number(path: Path, pattern: str) -> int | None:
    try:
        found = re.search(pattern, path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
