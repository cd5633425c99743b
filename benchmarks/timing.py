"""What a call costs, on Linux: wall clock, CPU seconds, and memory above what was held before.

Nothing of ctscribe is imported: `prepare_contenders` also runs where only other libraries are.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ctscribe.base.workers import worker_pool

Result = TypeVar("Result")


class Cost(NamedTuple):
    """Of one call, in this process and all its threads."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    """Largest resident memory during the call, less what was resident when it began."""


def measured(call: Callable[[], Result]) -> tuple[Result, Cost]:
    """What a call returns, and what it cost."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before_mb, wall, cpu = resident_mb("VmRSS"), time.perf_counter(), time.process_time()
    result = call()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return result, Cost(*spent, resident_mb("VmHWM") - before_mb)


def least_s(call: Callable[[], object], repeats: int) -> float:
    """Shortest wall clock of a few calls, which other work on the machine disturbs least."""
    return min(measured(call)[1].wall_s for _ in range(repeats))


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """Runs a function in a fresh process, so that its memory and caches are its own."""
    with worker_pool(1) as pool:
        return pool.submit(function, *arguments).result()


def resident_mb(field: str) -> float:
    """Memory of this process now (VmRSS), or the most it had (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000
