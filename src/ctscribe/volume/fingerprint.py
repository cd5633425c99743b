"""Whether a source is the one that was read before: cheaply by its files, surely by a hash."""

import hashlib
from pathlib import Path
from typing import TypedDict

from ctscribe.errors import CtscribeError
from ctscribe.files import sha256_of_file
from ctscribe.volume.nifti_pair import pair_of


class Fingerprint(TypedDict):
    """What changes when a source does, told without reading it."""

    source_bytes: int
    source_mtime_ns: int


def files_of(path: Path) -> list[Path]:
    """A file itself, both of a NIfTI pair, or all files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return pair_of(path)


def fingerprint(path: Path, study: str) -> Fingerprint:
    """Size of a source's files together, and when it last changed.

    Raises:
        CtscribeError: ``E_READ``, naming the study.
    """
    try:
        states = [file.stat() for file in files_of(path)]
    except OSError as error:
        raise CtscribeError("E_READ", f"{study} must be readable, but {error.strerror}") from error
    return {
        "source_bytes": sum(state.st_size for state in states),
        "source_mtime_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def sha256_of_source(path: Path) -> str:
    """SHA-256 of a file's bytes; of several files, that of their sorted hashes, one per line.

    File names do not enter it: they may tell of a patient, and renaming changes no voxel.
    """
    hashes = sorted(sha256_of_file(file) for file in files_of(path))
    if len(hashes) == 1 and not path.is_dir():
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
