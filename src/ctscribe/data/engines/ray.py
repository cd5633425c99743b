"""A running Ray cluster: tasks or actors, on machines that share their files."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, final

from ctscribe.base.errors import CtscribeError
from ctscribe.data.engines.engine import Result, Task, import_extra

_ATTEMPTS = 3
"""We count them ourselves, since Ray would retry a task that exhausts memory for ever."""
_REACH_S = 10
_AHEAD = 2
"""Tasks submitted per processor, so that none idles while the driver handles a result."""


def work(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int | None,
    *,
    lost: Callable[[Task], Result],
    need_bytes: Callable[[Task], int],
) -> Iterator[Result]:
    """See `Engine`; the cluster is the one at ``RAY_ADDRESS``, or the one of this machine.

    A task whose process or machine dies, or runs out of memory, is tried up to three times.
    """
    with _cluster() as ray:
        remote = ray.remote(num_cpus=1, max_retries=0)(function)
        waiting = deque((task, 1) for task in tasks)
        at_work: dict[Any, tuple[Task, int]] = {}
        while waiting or at_work:
            most = processes or _AHEAD * int(ray.cluster_resources().get("CPU", 1))
            while waiting and len(at_work) < most:
                task, attempt = waiting.popleft()
                at_work[remote.remote(task)] = (task, attempt)
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            task, attempt = at_work.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError:
                if attempt < _ATTEMPTS:
                    waiting.append((task, attempt + 1))
                else:
                    yield lost(task)


def work_by_actors(
    begin: Callable[[], Callable[[Task], Result]],
    tasks: Sequence[Task],
    *,
    lost: Callable[[Task], Result],
) -> Iterator[Result]:
    """As `work`, for workers that keep something large, such as a model, between tasks.

    There is one worker for each GPU of the cluster, or for each processor if it has no GPU.

    Args:
        begin: Importable by name, or a picklable object. It is called once in each worker and
            returns the function that does a task.
        tasks: Picklable.
        lost: See `Engine`.

    Raises:
        CtscribeError: As `work`.
    """
    with _cluster() as ray:
        waiting = deque((task, 1) for task in tasks)
        idle: list[Any] = []
        at_work: dict[Any, tuple[Any, Task, int]] = {}
        while waiting or at_work:
            there = ray.cluster_resources()
            num_gpus = int(there.get("GPU", 0))
            kind = ray.remote(num_cpus=1, num_gpus=min(1, num_gpus))(_Actor)
            most = num_gpus or int(there.get("CPU", 1))
            while waiting and len(at_work) < most:
                task, attempt = waiting.popleft()
                actor = idle.pop() if idle else kind.remote(begin)
                at_work[actor.do.remote(task)] = actor, task, attempt
            while idle and not waiting:
                ray.kill(idle.pop())  # frees its GPU or processor for other users
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            actor, task, attempt = at_work.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError:
                if attempt < _ATTEMPTS:
                    waiting.appendleft((task, attempt + 1))
                else:
                    yield lost(task)
            else:
                idle.append(actor)
                yield result


@final
class _Actor:
    """Calls ``begin`` at the first task, so that errors in it are raised by that task."""

    def __init__(self, begin: Callable[[], Callable[[Any], Any]]) -> None:
        self._begin = begin
        self._function: Callable[[Any], Any] | None = None

    def do(self, task: object) -> object:
        self._function = self._function or self._begin()
        return self._function(task)


@contextmanager
def _cluster() -> Iterator[ModuleType]:
    ray = import_extra("ray", "ray")
    joined = not ray.is_initialized()
    if joined:
        try:
            address = os.environ.get("RAY_ADDRESS", "auto")
            _reach(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise CtscribeError(
                "E_ENGINE",
                "the engine ray must find a running cluster (ray start --head), but there is none "
                "at RAY_ADDRESS or on this machine",
            ) from error
    try:
        yield ray
    finally:
        if joined:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raises ``OSError`` where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
