"""A folder, a zip archive, a list of files or one file → the DICOM files in it.

In: a path. Out: `DicomFile`s, which can be opened for reading. Zip archives are untrusted: one that
is not a plain archive of limited size is refused before anything in it is read.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase, BufferedReader, BytesIO, FileIO
from pathlib import Path, PurePosixPath
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import not_readable
from ctscribe.scan.file_list import is_file_list, read_file_list

MAGIC = b"PK\x03\x04"
_END = b"PK\x05\x06"
_ZIP64_END = b"PK\x06\x07"
_MAX_ENTRIES = 20_000
_MAX_DIRECTORY_BYTES = 8 << 20
_MAX_BYTES = 8 << 30
_MAX_ENTRY_BYTES = 2 << 30
_MAX_RATIO = 100
_SMALL_BYTES = 64 << 20
"""An archive that unpacks to less is harmless, whatever its ratio."""
_LARGE_READ_BYTES = 1 << 20
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Files named so are damaged if they are not DICOM; others may be licences or thumbnails."""


@final
@dataclass(frozen=True, eq=False, slots=True)
class DicomFile:
    """One file, in a folder or in an archive.

    Attributes:
        open: Opens it for reading from its start.
        claimed: Whether it counts as damaged unless it is DICOM: by its name, or as it is empty.
        path: Path of the file, or of the archive that holds it.
        entry: Number of the file in the archive; None in a folder.
    """

    open: Callable[[], BufferedIOBase]
    claimed: bool
    path: Path
    entry: int | None = None


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder, a zip archive, a DICOM file or a list of such files.

    Archives and DICOM files are recognised by their first bytes.
    """
    if not path.is_file() or is_file_list(path):
        return path.exists()
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start.startswith(MAGIC) or begins_bare(start)


def begins_bare(start: bytes) -> bool:
    """Whether a file has no preamble, as in old archives, and begins with a DICOM element.

    The element must be of group 0008 in little endian: its length, the character set, the image
    type or the SOP class, with its value representation where that is explicit.
    """
    element = int.from_bytes(start[2:4], "little")
    if start[:2] != b"\x08\0" or element not in (0x0000, 0x0001, 0x0005, 0x0008, 0x0016):
        return False
    explicit = start[4:6] in (b"UL", b"CS", b"UI")
    return explicit or int.from_bytes(start[4:8], "little") <= 128


@contextmanager
def dicom_files(path: Path, study: str) -> Iterator[list[DicomFile]]:
    """The files of a folder with its subfolders, of a zip archive or a list, or the one file.

    DICOMDIR files and the ``._*`` files of macOS are skipped.

    Raises:
        CtscribeError: ``E_READ`` for a folder that cannot be listed, a dangling link or a listed
            file that is missing; as `_open_zip` for an archive.
    """
    if path.is_dir():
        files = [file for file in _listed(path, study) if _is_file(file, study)]
        yield [_on_disk(file) for file in files if is_wanted(file.name)]
    elif is_file_list(path):
        with _listed_files(path, study) as listed:
            yield listed
    elif not is_zip(path):
        yield [_on_disk(path)]
    else:
        with _files_in_zip(path, study) as inside:
            yield inside


def files_below(folder: Path) -> list[Path]:
    """What lies in a folder and those below it but folders, sorted.

    Links to folders are followed; a folder that several lead to is listed once.

    Raises:
        OSError: For a folder that cannot be listed.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(where, name) for name in names]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _listed(folder: Path, study: str) -> list[Path]:
    try:
        return files_below(folder)
    except OSError as error:
        raise not_readable(study, error) from error


@contextmanager
def _files_in_zip(path: Path, study: str) -> Iterator[list[DicomFile]]:
    with _open_zip(path, study) as (archive, entries):

        def unpack(index: int) -> BufferedIOBase:
            return BytesIO(_read_entry(archive, entries[index], study))

        yield [
            DicomFile(partial(unpack, index), _claims(entry.filename, entry.file_size), path, index)
            for index, entry in enumerate(entries)
            if is_wanted(PurePosixPath(entry.filename).name)
        ]


@contextmanager
def _listed_files(path: Path, study: str) -> Iterator[list[DicomFile]]:
    """The files that a list names, in its order."""
    with ExitStack() as archives:
        found: list[DicomFile] = []
        for file, entries in read_file_list(path).items():
            if not file.is_file():
                raise CtscribeError(
                    "E_READ", f"{study} must have all its files, but one that is listed is gone"
                )
            if entries is None:
                found.append(_on_disk(file))
            else:
                inside = archives.enter_context(_files_in_zip(file, study))
                found += [one for one in inside if one.entry in entries]
        yield found


def _is_file(path: Path, study: str) -> bool:
    if path.is_symlink() and not path.exists():
        raise CtscribeError(
            "E_READ", f"{study} must have all its files, but one is a link that leads nowhere"
        )
    return path.is_file()


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def _on_disk(path: Path) -> DicomFile:
    return DicomFile(lambda: _Bounded(FileIO(path)), _claims(path.name, path.stat().st_size), path)


@final
class _Bounded(BufferedReader):
    """A reader that never allocates more than the file's size, whatever length a header claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGE_READ_BYTES:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def _claims(name: str, num_bytes: int) -> bool:
    return name.lower().endswith(_DICOM_SUFFIXES) or num_bytes == 0


def is_wanted(name: str) -> bool:
    """Whether a file of this name may be an image: no DICOMDIR, no ``._*`` file of macOS."""
    return name.upper() != "DICOMDIR" and not name.startswith("._")


@contextmanager
def _open_zip(path: Path, study: str) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Opens an archive and yields it with its files, sorted by name.

    Raises:
        CtscribeError: ``E_ARCHIVE`` or ``E_BOMB`` for an archive that is not plain or too large,
            ``E_TRUNCATED`` for a damaged one, ``E_READ``.
    """
    with _zip_file(path, study) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_entries(entries, path.stat().st_size, study)
        yield archive, sorted(entries, key=lambda entry: entry.filename)


def _zip_file(path: Path, study: str) -> zipfile.ZipFile:
    try:
        _check_directory_size(path, study)
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise _damaged(study) from error
    except OSError as error:
        raise not_readable(study, error) from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, study: str) -> bytes:
    """Reads one file of an archive, verifying its checksum and its declared size.

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
    """Checks the size of the central directory, which zipfile would read into memory unchecked."""
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
        "E_ARCHIVE", f"{study} must be a plain zip archive of one DICOM series, but it {fault}"
    )


def _damaged(study: str) -> CtscribeError:
    return CtscribeError(
        "E_TRUNCATED", f"{study} must be a complete zip archive, but it is cut or damaged"
    )
