"""Files written whole or not at all, text and JSON read, and checksums."""

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from isal.isal_zlib import crc32

from ctscribe.base.errors import CtscribeError

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""
_HASH = re.compile(r"\b[0-9a-f]{16,64}\b")
_INPUTS = {"start": "starting weights", "where": "boxes or masks"}
"""Keys of a recorded request that mean nothing to a user, and what errors call them instead."""
_PART = ".part"
"""Suffix of temporary files."""
LOCK = ".lock"
"""Name or suffix of a lock file, which exists only while the lock is held."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of storage that does not support locks."""
CRC32 = "crc32"
"""Last key of JSON objects and rows: the CRC-32 of everything before it, 8 hexadecimal digits."""
_MAX_BYTES, _MAX_JSON_BYTES = 4 << 30, 256 << 20
"""Ten times the tables of all of CT-RATE, and ten times its scores."""
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of .xlsx and .ods, and of old .xls."""
_CHUNK_BYTES = 1 << 22
_MAX_QUOTED = 200
"""Characters of another library's message that an error quotes."""
UNPARSABLE = (ValueError, RecursionError)
"""What the parsers of JSON and YAML raise for a wrong character or byte, a number of too many
digits, an impossible date, and too deep a nesting."""
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

Sizes = dict[str, tuple[int, int]]
"""Path of a file within a folder → its bytes and CRC-32."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yields a binary file that becomes ``path`` only when the block ends without an error.

    The bytes go to a temporary file in the same folder, are flushed to disk, and replace
    ``path`` in one rename, which is flushed too; a reader sees the old file or the new one, never
    a part, and what was written outlives a power cut.

    Raises:
        CtscribeError: ``E_WRITE`` when the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:80]}.", suffix=_PART
        )
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # storage without locks
                fcntl.flock(file, fcntl.LOCK_EX)  # so that `remove_parts` leaves it
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Flushes a folder's own entries, such as a rename, to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path, of: str | None = None) -> None:
    """Removes temporary files and locks that killed processes left behind; spares those in use.

    Args:
        folder: Searched with its subfolders.
        of: Restricts it to temporary files directly in the folder whose target's name begins so.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    hidden = folder.rglob(".*") if of is None else folder.glob(f".{escape(of[:80])}*{_PART}")
    try:
        for left in hidden:
            if not left.name.endswith((_PART, LOCK)):
                continue
            with suppress(FileNotFoundError, BlockingIOError), left.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
    except OSError as error:
        if error.errno not in NO_LOCKS:  # without locks nobody can tell what is in use
            raise not_writable(folder, error) from error


def not_writable(path: Path, error: OSError) -> CtscribeError:
    """The error that the system refused to write ``path``."""
    return CtscribeError("E_WRITE", f"{path} must be writable, but {error.strerror or error}")


def not_readable(study: str, error: OSError) -> CtscribeError:
    """The error that the system refused to read a study's files."""
    return CtscribeError("E_READ", f"{study} must be readable, but {error.strerror or error}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's errors in the block, which writes at or below ``path``, into ours.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    try:
        yield
    except OSError as error:
        raise not_writable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{path} must be a readable file, but {error.strerror or error}"
        ) from error


def read_bytes(path: Path, at_most: int = _MAX_BYTES) -> bytes:
    """Reads a file whole.

    Raises:
        CtscribeError: ``E_MISSING``, or ``E_READ`` for a folder, a device, a file of more than
            ``at_most`` bytes, or one that the system refuses to read.
    """
    with _reading(path):
        size = _size_of_file(path)
        if size > at_most:
            raise CtscribeError(
                "E_READ",
                f"{path} must be a readable file, but its {size:,} bytes are more than the "
                f"{at_most:,} that such a file may have",
            )
        return path.read_bytes()


def _size_of_file(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISFIFO(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device"
        raise CtscribeError("E_READ", f"{path} must be a readable file, but it is {kind}")
    return found.st_size


def read_text(path: Path, at_most: int = _MAX_BYTES) -> str:
    """Reads UTF-8 text, with or without byte order mark; line ends stay as they are.

    Raises:
        CtscribeError: As `read_bytes`, or ``E_ENCODING`` with the line.
    """
    content = read_bytes(path, at_most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        is_utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "UTF-16" if is_utf_16 else f"the byte 0x{content[error.start]:02X}"
        if content.startswith(_SPREADSHEETS):
            raise CtscribeError(
                "E_ENCODING", f"{path} must be UTF-8 text such as CSV, but is a spreadsheet's file"
            ) from error
        raise CtscribeError(
            "E_ENCODING",
            f"{path} must be UTF-8 text, but line {line} holds {found}, as files saved in another "
            "encoding do",
        ) from error


@contextmanager
def open_text(path: Path, *, newline: str) -> Iterator[TextIO]:
    """Opens UTF-8 text as `read_text` reads it, for files too large for memory.

    ``newline`` is as for `open`: which characters end a line.

    Raises:
        CtscribeError: As `read_text`, at the latest when the line at fault is read.
    """
    with _reading(path):
        _size_of_file(path)
        file = path.open(encoding="utf-8-sig", newline=newline)
    try:
        with file:
            yield file
    except (OSError, UnicodeDecodeError):
        read_text(path)  # raises an error that names the line
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON with a checksum of its content, which `read_json` checks.

    NaN and infinity are refused, as JSON has neither.
    """
    content = json.loads(json.dumps(value, allow_nan=False))
    write_plain_json(path, {**content, CRC32: _crc32_of_json(content)})


def write_plain_json(path: Path, value: object) -> None:
    """Writes indented JSON that other tools read, and so without a checksum."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, without the checksum that `write_json` gave it.

    Objects without a checksum, of other tools or earlier versions, are accepted.

    Raises:
        CtscribeError: As `read_any_json`; ``E_JSON`` for anything but an object, and for content
            that was changed since it was written.
    """
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise CtscribeError(
            "E_JSON", f"{path} must be a JSON object, but it is {_json_kind(content)}"
        )
    if CRC32 in content and content.pop(CRC32) != _crc32_of_json(content):
        raise CtscribeError(
            "E_JSON",
            f"{path} must be as its stage wrote it, but its content was changed or damaged since: "
            "it does not have its own checksum",
        )
    return content


def object_in(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; empty where the key is missing or holds something else."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def read_any_json(path: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    """Reads a JSON file of any content.

    Raises:
        CtscribeError: As `read_bytes`; ``E_JSON`` for anything but JSON in UTF-8, too deep a
            nesting, or a key that occurs twice.
    """
    try:
        return parse_json(read_bytes(path, _MAX_JSON_BYTES).decode("utf-8-sig"))
    except UNPARSABLE as error:
        raise CtscribeError("E_JSON", f"{path} must be JSON, but {brief(error)}") from error


def parse_json(text: str) -> Any:  # noqa: ANN401 - JSON is what it is
    """Parses JSON strictly: no key twice, no NaN, no lone surrogate.

    Raises:
        UNPARSABLE: Whatever is wrong with it.
    """
    value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    if "\\ud" in text.lower() and _LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("it holds half a character")
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def brief(error: BaseException) -> str:
    """Another library's message on one line, shortened, to be quoted within a sentence."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecursionError):
        message = "it nests too deeply"
    return message if len(message) <= _MAX_QUOTED else f"{message[:_MAX_QUOTED]} …"


def _json_kind(value: object) -> str:
    kinds = {type(None): "null", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number")


def _crc32_of_json(content: object) -> str:
    """CRC-32 of a JSON value, whatever white space its file has."""
    return crc32_of(json.dumps(content, separators=(",", ":")))


def crc32_of(text: str) -> str:
    """CRC-32 of a text in UTF-8, as 8 hexadecimal digits."""
    return f"{crc32(text.encode()):08x}"


def sha256_of_json(value: object) -> str:
    """Hash of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hash of a file's bytes, read in pieces.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_READ``.
    """
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_in_words(num_bytes: int) -> str:
    """A size such as ``1.2 GB`` or ``35 MB``; GB = 10⁹ bytes."""
    gigabytes = num_bytes / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:.0f} MB"


def measure_files(folder: Path, marker: str) -> Sizes:
    """Size and CRC-32 of every file in a complete folder but ``marker``, for `changed_file`.

    Raises:
        CtscribeError: ``E_READ``.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != marker)
    return {str(path.relative_to(folder)): _measure(path) for path in files}


def _measure(path: Path) -> tuple[int, int]:
    value = 0
    with _reading(path), path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            value = crc32(part, value)
        return file.tell(), value


def changed_file(folder: Path, files: Mapping[str, Sequence[int]]) -> str | None:
    """The first file that is missing or differs from its recorded size and CRC-32, or None.

    Files that were added since are ignored.
    """
    for name, before in files.items():
        path = folder / name
        with suppress(CtscribeError, OSError):
            if path.stat().st_size == before[0] and _measure(path) == tuple(before):
                continue
        return name
    return None


def first_difference(before: object, after: object) -> str | None:
    """Names the first place where two JSON-able values differ; None where they agree."""
    return next(differences(before, after), None)


def differences(before: object, after: object, path: str = "") -> Iterator[str]:
    """Names every place where two JSON-able values differ, in the keys' order.

    A knob is named with both values, as in ``train.epochs (1 there, 2 asked)``. Hashes of input
    files mean nothing to a reader, so ``pairs_sha256`` becomes ``the pairs``.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))
    elif before != after:
        if _HASH.search(f"{before} {after}"):
            name = path.removesuffix("_sha256").replace("_", " ")
            yield f"the {_INPUTS.get(name, name)}"
        else:
            yield f"{path} ({before!r} there, {after!r} asked)"
