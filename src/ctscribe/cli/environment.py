"""What a report of a bug needs to know of a machine, and nothing that names it or its user."""

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from ctscribe.base.about import __version__
from ctscribe.cli.console import print_json, print_text
from ctscribe.cli.options import AsJson, app

_CPU_INFO = Path("/proc/cpuinfo")
_GIB = 1 << 30


@app.command
def env(*, as_json: AsJson = False) -> None:
    """Tell versions, platform, devices and memory, for a report of a bug."""
    found = environment()
    if as_json:
        print_json(found)
    else:
        print_text("\n".join(_lines(found)))


def environment() -> dict[str, Any]:
    """Versions, platform, devices and memory; no path, no name of a machine or user."""
    return {
        "ctscribe": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "devices": _devices(),
        "packages": _packages(),
    }


def _processor() -> str:
    """The model, where Linux tells it; elsewhere its family."""
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text("utf-8"), re.MULTILINE)
    except OSError:
        told = None
    return told[1] if told else platform.machine()


def _memory_gib() -> dict[str, float]:
    from ctscribe.data.engines.local import available_bytes

    found = {"machine": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    if (available := available_bytes()) is not None:
        found["available"] = available
    return {name: round(num_bytes / _GIB, 1) for name, num_bytes in found.items()}


def _devices() -> list[str]:
    """Accelerators that torch sees, with their memory and what drives them."""
    import torch

    if torch.backends.mps.is_available():
        return ["Apple GPU (MPS)"]
    found = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        driver = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        found.append(f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB, {driver}")
    return found


def _packages() -> dict[str, str | None]:
    """Versions of what the package requires and of its extras, as they are installed."""
    try:
        wanted = requires("ctscribe") or []
    except PackageNotFoundError:  # run from a folder of sources
        return {}
    names = (found[0] for each in wanted if (found := re.match(r"[\w.-]+", each)))
    return {name: _version(name) for name in sorted(set(names))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lines(found: dict[str, Any]) -> Iterator[str]:
    memory, packages = found["memory_gib"], found["packages"]
    told = found | {
        "memory_gib": ", ".join(f"{gib:g} GiB {name}" for name, gib in memory.items()),
        "devices": "; ".join(found["devices"]) or "no GPU",
        "packages": ", ".join(f"{name} {has}" for name, has in packages.items() if has),
        "not installed": ", ".join(name for name, has in packages.items() if not has),
    }
    for title, value in told.items():
        yield f"{title.removesuffix('_gib'):<14}{value}"
