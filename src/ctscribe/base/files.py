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
"""What a request calls otherwise than its reader."""
_PART = ".part"
"""Ends the names of temporary files."""
LOCK = ".lock"
"""The file that stands for a locked folder; it is there while the lock is held."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What storage says that knows no locks."""
CRC32 = "crc32"
"""Key, of JSON objects and rows, of the CRC-32 of everything before it, as 8 hexadecimal digits."""
_MOST_BYTES, _MOST_JSON_BYTES = 4 << 30, 256 << 20
"""Tables of all of CT-RATE have a tenth of the first, scores of it a tenth of the second."""
_PIECE = 1 << 22
_BRIEF = 200
"""Characters of what another library says that go into a sentence."""


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
    """Removes temporary files and locks that killed processes left, and none that is in use.

    Args:
        folder: With all below it.
        of: Only temporary files of files whose names begin so, directly in the folder.

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
        if error.errno not in NO_LOCKS:  # nobody knows there what is in use
            raise not_writable(folder, error) from error


def not_writable(path: Path, error: OSError) -> CtscribeError:
    """That the system does not let a path be written."""
    return CtscribeError("E_WRITE", f"{path} must be writable, but {error.strerror or error}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says in one sentence that the block could not write ``path`` or below it.

    Raises:
        CtscribeError: ``E_WRITE`` for any error of the system.
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


def read_bytes(path: Path, at_most: int = _MOST_BYTES) -> bytes:
    """Reads a file whole.

    Raises:
        CtscribeError: ``E_MISSING``, or ``E_READ`` for a folder, a device, a file of more than
            ``at_most`` bytes, or one that the system does not give out.
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


def read_text(path: Path, at_most: int = _MOST_BYTES) -> str:
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
        raise CtscribeError(
            "E_ENCODING",
            f"{path} must be UTF-8 text, but line {line} holds {found}, as files saved in another "
            "encoding do",
        ) from error


@contextmanager
def open_text(path: Path, *, newline: str) -> Iterator[TextIO]:
    """Opens UTF-8 text as `read_text` reads it, for what need not be held in memory whole.

    ``newline`` is that of `open`: which line ends part lines.

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
        read_text(path)  # says what is wrong
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes an object as indented JSON with a checksum of its content, which `read_json` checks.

    NaN and infinity are refused, as JSON has neither.
    """
    content = json.loads(json.dumps(value, allow_nan=False))
    write_plain_json(path, {**content, CRC32: _crc32_of(content)})


def write_plain_json(path: Path, value: object) -> None:
    """Writes indented JSON that other tools read, and so without a checksum."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, without the checksum that `write_json` gave it.

    An object without one is of another tool or an earlier version, and is taken as it is.

    Raises:
        CtscribeError: As `read_any_json`; ``E_JSON`` for anything but an object, and for content
            that is not what was written.
    """
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise CtscribeError(
            "E_JSON", f"{path} must be a JSON object, but it is {_json_kind(content)}"
        )
    if CRC32 in content and content.pop(CRC32) != _crc32_of(content):
        raise CtscribeError(
            "E_JSON",
            f"{path} must be as its stage wrote it, but its content was changed or damaged since: "
            "it does not have its own checksum",
        )
    return content


def object_in(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; an empty one where something else or nothing stands there."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def read_any_json(path: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    """Reads a JSON file of any content.

    Raises:
        CtscribeError: As `read_bytes`; ``E_JSON`` for what is no JSON in UTF-8, nests too deeply,
            or names a key twice.
    """
    try:
        return parse_json(read_bytes(path, _MOST_JSON_BYTES).decode("utf-8-sig"))
    except UNPARSABLE as error:
        raise CtscribeError("E_JSON", f"{path} must be JSON, but {brief(error)}") from error


UNPARSABLE = (ValueError, RecursionError)
"""What the parsers of JSON and YAML raise at any text: a wrong sign or byte, a number of too many
digits, a date that is none, and too deep a nesting."""


_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


def parse_json(text: str) -> Any:  # noqa: ANN401 - JSON is what it is
    """Parses JSON strictly: no key twice, no NaN, no half of a character.

    Raises:
        UNPARSABLE: Whatever is wrong with it.
    """
    value = json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant)
    if "\\ud" in text.lower() and _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
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
    """What a parser or another library says, as part of a sentence: one line, and not long."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RecursionError):
        said = "it nests too deeply"
    return said if len(said) <= _BRIEF else f"{said[:_BRIEF]} …"


def _json_kind(value: object) -> str:
    kinds = {type(None): "null", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number")


def _crc32_of(content: object) -> str:
    """Of a JSON value, however it is spaced."""
    return f"{crc32(json.dumps(content, separators=(',', ':')).encode()):08x}"


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


Sizes = dict[str, tuple[int, int]]
"""Bytes and CRC-32 of files, by their path in a folder; beside them in the marker that is written
last."""


def size_in_words(num_bytes: int) -> str:
    """Such as 1.2 GB or 35 MB; GB = 10⁹ bytes."""
    gigabytes = num_bytes / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:.0f} MB"


def measure_files(folder: Path, marker: str) -> Sizes:
    """What `changed_file` compares: every file of a complete folder, but for its marker.

    Raises:
        CtscribeError: ``E_READ``.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != marker)
    return {str(path.relative_to(folder)): _measure(path) for path in files}


def _measure(path: Path) -> tuple[int, int]:
    value = 0
    with _reading(path), path.open("rb") as file:
        while part := file.read(_PIECE):
            value = crc32(part, value)
        return file.tell(), value


def changed_file(folder: Path, files: Mapping[str, Sequence[int]]) -> str | None:
    """The first file that is not there or not what was written; None where all are whole.

    Files that were added since do not count.
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

    A knob is named with both values, as in ``train.epochs (1 there, 2 asked)``. Of an input file
    only a hash is known, which tells nobody anything, so ``pairs_sha256`` becomes ``the pairs``.
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
