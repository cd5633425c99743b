"""How much memory this process and its children may still take."""

import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """What the machine has free or can free, or the container's limit leaves; None if unknown.

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
