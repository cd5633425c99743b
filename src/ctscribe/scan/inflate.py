"""A file on disk → its bytes, inflated if it is gzip; damaged files and gzip bombs are refused.

In: a path. Out: a stream, or a `CtscribeError` that names the study instead of the path.
"""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from isal import igzip, isal_zlib

from ctscribe.base.errors import CtscribeError

GZIP = b"\x1f\x8b"
_PIECE = 1 << 18
_MAX_LEFT_OVER = 1 << 20
_MAX_DEFLATE_RATIO = 1032
"""The most that DEFLATE can expand (zlib technical details)."""
_SUSPICIOUS_RATIO = 400
_SUSPICIOUS_BYTES = 256 << 20
_MIN_ZEROS = 10
"""One more than the empty block that ends a blocked gzip file has (SAM specification, 4.1.2)."""
_NOT_MEDICAL = {
    b"<!do": "a web page",
    b"<htm": "a web page",
    b"<?xm": "an XML document",
    b"vers": "a Git LFS pointer",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"\xfd7zX": "xz data",
    b"BZh9": "bzip2 data",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff\xe0": "a JPEG image",
    b"NRRD": "an NRRD file",
    b"Obje": "a MetaImage file",
}
"""What a file is by its first four bytes."""


@contextmanager
def open_inflated(path: Path, study: str) -> Iterator[BufferedIOBase]:
    """Opens a file for reading; gzip is recognised by content, not by name, and inflated.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, ``E_EMPTY``, ``E_NOT_MEDICAL`` on opening;
            ``E_TRUNCATED``, ``E_CHECKSUM`` or ``E_TRAILING`` while the block reads.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            check_kind(start, study)
            file.seek(0)
            if start[:2] == GZIP:
                with igzip.IGzipFile(fileobj=file, mode="rb") as inflated:
                    yield inflated
            else:
                yield file
    except FileNotFoundError as error:
        raise CtscribeError(
            "E_MISSING", f"{study} must be on disk, but its file is not there"
        ) from error
    except EOFError as error:
        raise CtscribeError(
            "E_TRUNCATED", f"{study} must be a complete gzip file, but it ends early"
        ) from error
    except (gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]  # isal's stub
        raise _damaged(study, error) from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{study} must be a readable file, but {error.strerror or error}"
        ) from error


def read_into(stream: BufferedIOBase, buffer: memoryview) -> int:
    """Fills a byte buffer from a stream; returns the number of bytes read."""
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled : filled + _PIECE])
        if not count:
            break
        filled += count
    return filled


def drain(stream: BufferedIOBase, study: str) -> int:
    """Reads to the end, which verifies gzip's checksum and size; returns how many bytes were left.

    Raises:
        CtscribeError: ``E_TRAILING`` when more than a megabyte follows.
    """
    left = 0
    while piece := stream.read(_PIECE):
        left += len(piece)
        if left > _MAX_LEFT_OVER:
            raise CtscribeError(
                "E_TRAILING",
                f"{study} must end with its last voxel, but more than a megabyte follows",
            )
    return left


def ends_in_zeros(path: Path) -> bool:
    """Whether gzip data are padded with zeros, as on tapes: more of them than any trailer has."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP
        file.seek(max(0, path.stat().st_size - _MIN_ZEROS))
        return is_gzip and not any(file.read())


def check_size(path: Path, num_bytes: int, study: str, *, is_mask: bool = False) -> None:
    """Refuses a size, before it is allocated, that the file cannot inflate to or no CT does.

    Masks, which are mostly zeros, may reach DEFLATE's highest ratio.

    Raises:
        CtscribeError: ``E_TRUNCATED`` or ``E_BOMB``.
    """
    stored = path.stat().st_size
    if num_bytes > stored * _MAX_DEFLATE_RATIO:
        raise CtscribeError(
            "E_TRUNCATED",
            f"{study} must hold the {num_bytes} bytes that its header promises, but {stored} bytes "
            "cannot",
        )
    if not is_mask and num_bytes > max(stored * _SUSPICIOUS_RATIO, _SUSPICIOUS_BYTES):
        raise CtscribeError(
            "E_BOMB",
            f"{study} must be CT, but it would inflate {num_bytes // max(stored, 1)}-fold, "
            "which no CT does",
        )


def check_kind(start: bytes, study: str) -> None:
    """Refuses a file whose first four bytes are those of something else than an image volume.

    Raises:
        CtscribeError: ``E_EMPTY`` or ``E_NOT_MEDICAL``.
    """
    if not start:
        raise CtscribeError("E_EMPTY", f"{study} must hold a volume, but its file has no bytes")
    found = _NOT_MEDICAL.get(start) or _NOT_MEDICAL.get(start.lower())
    if found:
        raise CtscribeError("E_NOT_MEDICAL", f"{study} must be a NIfTI file, but it is {found}")


def _damaged(study: str, error: Exception) -> CtscribeError:
    if "Not a gzipped file" in str(error):
        return CtscribeError(
            "E_TRAILING", f"{study} must end where its gzip data end, but other bytes follow"
        )
    return CtscribeError(
        "E_CHECKSUM", f"{study} must pass gzip's own check, but its bytes were altered"
    )
