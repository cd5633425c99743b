"""A zip archive read in memory, after its directory has been found honest and small.

Nothing is unpacked to disk: copies of a patient's images would outlive a killed process.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ctscribe.errors import CtscribeError

MAGIC = b"PK\x03\x04"
_END = b"PK\x05\x06"
_ZIP64_END = b"PK\x06\x07"
_MAX_ENTRIES = 20_000
_MAX_DIRECTORY_BYTES = 8 << 20
_MAX_BYTES = 8 << 30
_MAX_ENTRY_BYTES = 2 << 30
_MAX_RATIO = 100
_SMALL_BYTES = 64 << 20
"""Below this even a thousandfold expansion is harmless."""


@contextmanager
def open_zip(path: Path, study: str) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Opens an archive; gives it with its files, sorted by name.

    Raises:
        CtscribeError: ``E_ARCHIVE`` or ``E_BOMB`` for what is no plain, bounded archive,
            ``E_TRUNCATED`` when it is damaged, ``E_READ``.
    """
    with _open(path, study) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_entries(entries, path.stat().st_size, study)
        yield archive, sorted(entries, key=lambda entry: entry.filename)


def _open(path: Path, study: str) -> zipfile.ZipFile:
    try:
        _check_directory_size(path, study)
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise _damaged(study) from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{study} must be readable, but {error.strerror or error}"
        ) from error


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, study: str) -> bytes:
    """One file of an archive, its checksum verified; never more bytes than it declared.

    Raises:
        CtscribeError: ``E_TRUNCATED``, or ``E_ARCHIVE`` for an archive within the archive.
    """
    try:
        with archive.open(entry) as stream:
            content = stream.read(entry.file_size)
            whole = len(content) == entry.file_size and not stream.read(1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(study) from error
    if not whole:
        raise _damaged(study)
    if content.startswith(MAGIC):
        raise _refused(study, "holds another archive")
    return content


def _check_directory_size(path: Path, study: str) -> None:
    """Reads the archive's last record, because the standard library believes it unseen."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 42))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise _damaged(study)
    num_entries, num_bytes = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(_ZIP64_END):
        raise _refused(study, "is larger than 4 GB or has more than 65,535 files")
    if num_entries > _MAX_ENTRIES or num_bytes > _MAX_DIRECTORY_BYTES:
        raise _refused(study, f"has more than {_MAX_ENTRIES} files or absurdly long names")


def _check_entries(entries: list[zipfile.ZipInfo], archive_bytes: int, study: str) -> None:
    for entry in entries:
        if entry.header_offset < 0:
            raise _damaged(study)
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.orig_filename:
            raise _refused(study, "has a path that leads out of it")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused(study, "has a link in it")
        if entry.flag_bits & 1:
            raise _refused(study, "is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(study, "is compressed by another method than deflate")
        if entry.filename.lower().endswith((".zip", ".7z", ".rar", ".tar", ".gz", ".tgz")):
            raise _refused(study, "holds another archive")
    total = sum(entry.file_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    if total > _MAX_BYTES or largest > _MAX_ENTRY_BYTES:
        raise _refused(study, f"would take {total / 2**30:.0f} GB")
    if total > max(_SMALL_BYTES, archive_bytes * _MAX_RATIO):
        raise CtscribeError(
            "E_BOMB",
            f"{study} must be CT, but it would inflate {total // max(archive_bytes, 1)}-fold, "
            "which no CT does",
        )


def _refused(study: str, fault: str) -> CtscribeError:
    return CtscribeError(
        "E_ARCHIVE",
        f"{study} must be a plain zip archive of one DICOM series, but it {fault}",
    )


def _damaged(study: str) -> CtscribeError:
    return CtscribeError(
        "E_TRUNCATED",
        f"{study} must be a complete zip archive, but it is cut or damaged",
    )
