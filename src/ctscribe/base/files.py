"""Files written whole or not at all, text and JSON read, and hashes."""

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ctscribe.base.errors import CtscribeError

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""
_HASH = re.compile(r"\b[0-9a-f]{16,64}\b")
_INPUTS = {"start": "starting weights", "where": "boxes or masks"}
"""What a request calls otherwise than its reader."""
_PART = ".part"
"""Ends the names of temporary files."""


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
    """Removes temporary files that killed processes left, and none that is still written.

    Args:
        folder: With all below it.
        of: Only those of files whose names begin so, directly in the folder.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    pattern = f"**/.*{_PART}" if of is None else f".{escape(of[:80])}*{_PART}"
    try:
        for left in folder.glob(pattern):
            with suppress(FileNotFoundError, BlockingIOError), left.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(path: Path, error: OSError) -> CtscribeError:
    """That the system does not let a path be written."""
    return CtscribeError("E_WRITE", f"{path} must be writable, but {error.strerror or error}")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def read_text(path: Path) -> str:
    """Reads UTF-8 text, with or without byte order mark; line ends stay as they are.

    Raises:
        CtscribeError: ``E_MISSING``, ``E_READ``, or ``E_ENCODING`` with the line.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{path} must be a readable file, but {error.strerror}"
        ) from error
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
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except (OSError, UnicodeDecodeError):
        read_text(path)  # says what is wrong
        raise


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused, as JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    """Reads a JSON file.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_JSON``.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CtscribeError("E_MISSING", f"{path} must exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CtscribeError("E_JSON", f"{path} must be JSON, but {error}") from error


def sha256_of_json(value: object) -> str:
    """Hash of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
