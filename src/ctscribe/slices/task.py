"""One volume as an engine sees it: all that a worker needs, and what it hands back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ctscribe.errors import CtscribeError
from ctscribe.reports.ct_rate_cells import VolumeMetadata
from ctscribe.rows import SkippedRow
from ctscribe.slices.one import Keep, prepare_into

_BASE_BYTES = 110e6
"""Resident memory of a worker before its first volume."""
_INFLATED = 3
"""Most that chest CT expands from its file; 2.2 is usual."""
Outcome = tuple[str, dict[str, Any] | SkippedRow, bool]
"""A volume's name, its record or why there is none, and whether an earlier run had made it."""


@final
@dataclass(frozen=True, slots=True)
class VolumeTask:
    """One volume to prepare, without its report.

    Attributes:
        name: The volume's.
        path: File or folder.
        metadata: CT-RATE's row, where there is one.
        out: The prepared folder.
        options: See `prepare_into`.
        keep: See `prepare_into`.
        source_bytes: Of its files together.
    """

    name: str
    path: Path
    metadata: VolumeMetadata | None
    out: Path
    options: dict[str, Any]
    keep: Keep
    source_bytes: int


def do_task(task: VolumeTask) -> Outcome:
    """Prepares one volume in whatever process; only what stops every volume is raised.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    try:
        record, reused = prepare_into(
            task.out, task.name, task.path, task.metadata, task.options, task.keep
        )
    except CtscribeError as error:
        if error.code == "E_WRITE":
            raise
        return _failed(task, error)
    except MemoryError:
        told = f"{task.name} must fit into memory, but does not"
        return _failed(task, CtscribeError("E_MEMORY", told))
    return task.name, record, reused


def lost(task: VolumeTask) -> Outcome:
    """What is said of a volume whose worker died twice."""
    error = CtscribeError(
        "E_WORKER",
        f"{task.name} must be read to its end, but the worker that read it was ended, also when "
        "it did nothing else, perhaps for want of memory",
    )
    return _failed(task, error)


def need_bytes(task: VolumeTask) -> int:
    """Memory that a worker takes for this volume, told by the size of its files."""
    return round(_BASE_BYTES + _INFLATED * task.source_bytes)


def _failed(task: VolumeTask, error: CtscribeError) -> Outcome:
    row = SkippedRow(volume_name=task.name, code=error.code, reason=error.sentence)
    return task.name, row, False
