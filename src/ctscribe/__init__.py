"""Chest-CT report writers that look at the scan instead of reciting the template.

    import ctscribe as ct
    scan = ct.read_scan("series/")
    draft = ct.load_writer("runs/heter").write(scan)
    ct.find_findings(draft.text)
    ct.score(predictions=rows, references=rows).table()

Each name is imported when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ctscribe.base.about import RESEARCH_USE, __version__

if TYPE_CHECKING:
    from ctscribe.data.prepared import Prepared
    from ctscribe.front import find_findings, load_writer, read_scan, score

_ROOMS = {
    "read_scan": "front",
    "load_writer": "front",
    "find_findings": "front",
    "score": "front",
    "Prepared": "data.prepared",
}
__all__ = [
    "RESEARCH_USE",
    "Prepared",
    "__version__",
    "find_findings",
    "load_writer",
    "read_scan",
    "score",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    if name not in _ROOMS:
        raise AttributeError(f"module 'ctscribe' has no attribute {name!r}")
    return getattr(import_module(f"ctscribe.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
