"""Arrays on disk as .npy files whose CRC-32 is checked before a byte of them is believed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, final

import numpy as np
from isal import isal_zlib

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import atomic_write


@final
class CheckedWriter:
    """Writes a file part by part and keeps its CRC-32."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc32 = 0

    def write(self, part: np.ndarray | bytes) -> None:
        """Appends bytes or the elements of a contiguous array."""
        content = part if isinstance(part, bytes) else part.data
        self.crc32 = isal_zlib.crc32(content, self.crc32)
        self._file.write(content)


@contextmanager
def checked_writer(path: Path) -> Iterator[CheckedWriter]:
    """Opens a file for writing; atomic like `atomic_write`."""
    with atomic_write(path) as file:
        yield CheckedWriter(file)


@contextmanager
def npy_writer(path: Path, shape: Iterable[int], dtype: str) -> Iterator[CheckedWriter]:
    """Opens a .npy file of known shape and type, whose elements are then written in C order."""
    header = BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, described)
    with checked_writer(path) as writer:
        writer.write(header.getvalue())
        yield writer


def check_file(path: Path, crc32: object, name: str) -> None:
    """Reads a file and compares its CRC-32 with what was written.

    Args:
        path: The file.
        crc32: Of the whole file, from its sidecar.
        name: For the error.

    Raises:
        CtscribeError: ``E_CACHE`` when the file is missing or other than it was written.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        intact = isal_zlib.crc32(content.data) == crc32
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise CtscribeError(
            "E_CACHE",
            f"{name} must have the files that were stored, but one is missing or damaged",
        )


def map_npy(path: Path, crc32: object, name: str) -> np.ndarray:
    """Maps a .npy file into memory, read-only, after `check_file`."""
    check_file(path, crc32, name)
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
