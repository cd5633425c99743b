"""Checkpoints one can trust: a marker is written last, and only what carries it is resumed."""

import shutil
from pathlib import Path
from typing import final

from pydantic import ValidationError

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_text
from ctscribe.base.rows import Row

_MARKER = "complete.json"
_PREFIX = "checkpoint-"


@final
class CheckpointNote(Row):
    """``complete.json``: that a checkpoint is whole, and the best one up to it."""

    step: int
    """Updates done."""
    validation_ce: float
    best_step: int
    best_validation_ce: float
    bytes: dict[str, int]
    """Size of every other file, by its path in the folder."""


def seal(run_dir: Path, step: int, validation_ce: float, best: tuple[int, float]) -> CheckpointNote:
    """Marks ``checkpoint-<step>``, which is completely written, and removes all others.

    ``best`` is (step, validation cross entropy) of the best checkpoint so far.
    """
    folder = run_dir / f"{_PREFIX}{step}"
    # The Trainer pickles its arguments, with paths in them; nothing ever reads them back.
    (folder / "training_args.bin").unlink(missing_ok=True)
    note = CheckpointNote(
        step=step,
        validation_ce=validation_ce,
        best_step=best[0],
        best_validation_ce=best[1],
        bytes=_sizes(folder),
    )
    write_text(folder / _MARKER, note.model_dump_json(indent=2) + "\n")
    for other in _folders(run_dir):
        if other != folder:
            shutil.rmtree(other)
    return note


def newest_complete(run_dir: Path) -> tuple[Path, CheckpointNote] | None:
    """The furthest checkpoint whose marker fits its files, or None."""
    for folder in sorted(_folders(run_dir), key=_step, reverse=True):
        try:
            note = CheckpointNote.model_validate(read_json(folder / _MARKER))
        except (CtscribeError, ValidationError):
            continue
        if note.step == _step(folder) and note.bytes == _sizes(folder):
            return folder, note
    return None


def _folders(run_dir: Path) -> list[Path]:
    return [
        path
        for path in run_dir.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdigit()
    ]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _MARKER)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
