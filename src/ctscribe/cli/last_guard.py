"""What ends a command that nothing else ended in a sentence: closed output, a full disk, a bug."""

import errno
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ctscribe.base.about import __version__
from ctscribe.base.errors import CtscribeError

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_CANNOT_REACH = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG}


def explained(error: Exception) -> tuple[CtscribeError, int]:
    """One sentence for any error, and the status to exit with: 1, or 70 for what nobody foresaw.

    For the latter a file says where it happened; see `write_trace`.
    """
    if isinstance(error, CtscribeError):
        return error, 1
    if isinstance(error, MemoryError):
        return CtscribeError("E_MEMORY", "the command must fit into memory, but it did not"), 1
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE | _CANNOT_REACH:
        code, how = ("E_WRITE", "writable") if error.errno in _CANNOT_WRITE else ("E_READ", "open")
        path = error.filename or "the output"
        return CtscribeError(code, f"{path} must be {how}, but {error.strerror}"), 1
    where = write_trace(error)
    told = f"every error must be foreseen, but a {type(error).__name__} was not"
    return CtscribeError("E_INTERNAL", f"{told}; {where} says where it happened"), 70


def write_trace(error: BaseException) -> Path | str:
    """Writes where an error happened into the current folder, else among the temporary files.

    The file names errors and places in the code. What errors say may be out of a report or a
    header and stays away, as do arguments.
    """
    now = datetime.now(UTC)
    text = "".join(f"{line}\n" for line in (f"ctscribe {__version__}", *_places(error)))
    for folder in (Path(), Path(tempfile.gettempdir())):
        path = folder / f"ctscribe-error-{now:%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    return "no file, as none could be written,"


def _places(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _places(before)
        yield "then"
    for frame in traceback.extract_tb(error.__traceback__):
        place = "/".join(Path(frame.filename).parts[-3:])
        yield f"  {place}, line {frame.lineno}, in {frame.name}"
    yield type(error).__name__


def is_output_closed() -> bool:
    """Whether nobody reads any more what is printed, as after ``| head``."""
    watched = select.poll()
    for stream in (1, 2):
        watched.register(stream, 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def let_go_of_output() -> None:
    """Throws away what could not be printed, which Python would try again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, AttributeError):
            os.dup2(nowhere, 1 if stream is sys.stdout else 2)
