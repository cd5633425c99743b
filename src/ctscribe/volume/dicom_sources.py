"""Where DICOM files lie: in a folder, in a zip archive, or one alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase, BufferedReader, BytesIO, FileIO
from pathlib import Path, PurePosixPath
from typing import final

from ctscribe.errors import CtscribeError
from ctscribe.volume.zipped import MAGIC, open_zip, read_entry

_LARGE = 1 << 20
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file so called that is no DICOM was one; others are licences, thumbnails and the like."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class DicomFile:
    """One file, wherever it lies.

    Attributes:
        open: Gives its bytes from the start.
        claimed: Whether its name or emptiness says that it should have been DICOM.
    """

    open: Callable[[], BufferedIOBase]
    claimed: bool


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder, a zip archive or a DICOM file, by its first bytes."""
    if not path.is_file():
        return path.is_dir()
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start.startswith(MAGIC) or begins_bare(start)


def begins_bare(start: bytes) -> bool:
    """Whether a file begins at once with DICOM elements, as those of old archives do.

    The first is then one of group 0008 in little endian: its length, its character set, its
    image type or its class; with the representation that explicit files state.
    """
    element = int.from_bytes(start[2:4], "little")
    if start[:2] != b"\x08\0" or element not in (0x0000, 0x0001, 0x0005, 0x0008, 0x0016):
        return False
    explicit = start[4:6] in (b"UL", b"CS", b"UI")
    return explicit or int.from_bytes(start[4:8], "little") <= 128


@contextmanager
def dicom_files(path: Path, study: str) -> Iterator[list[DicomFile]]:
    """The files of a folder with its subfolders, of a zip archive, or the one file.

    Directories of media (DICOMDIR) and what a Mac leaves beside files are passed over.

    Raises:
        CtscribeError: ``E_READ`` for a link that leads nowhere; see `open_zip`.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_file(file, study))
        yield [_on_disk(file) for file in files if _wanted(file.name)]
        return
    if not _is_zip(path):
        yield [_on_disk(path)]
        return
    with open_zip(path, study) as (archive, entries):

        def unpack(index: int) -> BufferedIOBase:
            return BytesIO(read_entry(archive, entries[index], study))

        yield [
            DicomFile(partial(unpack, index), _claims(entry.filename, entry.file_size))
            for index, entry in enumerate(entries)
            if _wanted(PurePosixPath(entry.filename).name)
        ]


def _is_file(path: Path, study: str) -> bool:
    if path.is_symlink() and not path.exists():
        raise CtscribeError(
            "E_READ",
            f"{study} must have all its files, but one is a link that leads nowhere",
        )
    return path.is_file()


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def _on_disk(path: Path) -> DicomFile:
    return DicomFile(lambda: _Bounded(FileIO(path)), _claims(path.name, path.stat().st_size))


@final
class _Bounded(BufferedReader):
    """A file that makes no room for more than it holds, whatever length is asked of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGE:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def _claims(name: str, num_bytes: int) -> bool:
    return name.lower().endswith(_DICOM_SUFFIXES) or num_bytes == 0


def _wanted(name: str) -> bool:
    return name.upper() != "DICOMDIR" and not name.startswith("._")
