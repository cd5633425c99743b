"""One writer at a time: folders and files locked for a process, and who holds them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import FileIO
from pathlib import Path

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import LOCK, NO_LOCKS, not_writable, remove_parts

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Locks a folder for one process, for the length of the block or until that process dies.

    A stage inside another's block may lock the same folder again. Temporary files that a killed
    process left in the folder or below it are removed, those of predecessors before the block and
    those of its own workers after it; those that somebody still writes are left.

    The lock is the system's own (flock), so that of a dead process never blocks. It holds between
    machines where the storage passes locks on, as NFS from version 4 and Lustre mounted with flock
    do. Storage that keeps locks to each machine, such as NFS with ``local_lock`` or Lustre with
    ``localflock``, guards against processes of the same machine alone, and storage that knows no
    locks guards against nobody.

    Raises:
        CtscribeError: ``E_WRITE`` when the folder cannot be made or written, ``E_BUSY`` when
            another process is at work in it.
    """
    with _locked(folder, folder / LOCK, fcntl.LOCK_EX):
        remove_parts(folder)
        try:
            yield
        finally:
            remove_parts(folder)


@contextmanager
def many_writers(folder: Path) -> Iterator[None]:
    """Locks a folder for any number of processes, none of which writes another's files.

    `one_writer` is kept out meanwhile. Nothing is removed.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(folder, folder / LOCK, fcntl.LOCK_SH):
        yield


@contextmanager
def one_writer_of(path: Path) -> Iterator[None]:
    """As `one_writer`, for a single file or a folder that appears whole; others beside it may grow.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(path, _beside(path), fcntl.LOCK_EX):
        remove_parts(path.parent, of=path.stem)
        yield


@contextmanager
def many_writers_of(path: Path) -> Iterator[None]:
    """As `many_writers`, for a single file that processes put together: keeps `one_writer_of` out.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(path, _beside(path), fcntl.LOCK_SH):
        yield


def _beside(path: Path) -> Path:
    """The lock of a single file, which is not in a folder of its own."""
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def _locked(what: Path, lock: Path, kind: int) -> Iterator[None]:
    """Holds a lock on a file beside or in what it stands for, and takes the file away again.

    So it does with a folder that it made and in which nothing was written.
    """
    place = lock.absolute()
    if place in _HELD.get():
        yield
        return
    is_new = not lock.parent.exists()
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _take(what, lock, kind)
    except OSError as error:
        raise not_writable(what, error) from error
    token = _HELD.set(_HELD.get() | {place})
    try:
        _sign(what, file)
        yield
    finally:
        _HELD.reset(token)
        with file, suppress(OSError):  # others share it, or the place is read-only by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink(missing_ok=True)
            if is_new:
                lock.parent.rmdir()


def _take(what: Path, lock: Path, kind: int) -> FileIO:
    """Opens the file and locks it."""
    while True:
        file = lock.open("a+b", buffering=0)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                raise _busy(what, file) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # its holder took it away before it was ours


def _sign(what: Path, file: FileIO) -> None:
    """Notes who holds the lock and since when."""
    try:
        file.truncate(0)
        file.write(f"{os.getpid()} {_machine()} {time.strftime('%Y-%m-%d %H:%M')}".encode())
    except OSError as error:
        raise not_writable(what, error) from error


def _busy(what: Path, file: FileIO) -> CtscribeError:
    file.seek(0)
    match file.read(100).decode(errors="replace").split(" ", 2):
        case [process, machine, since] if process.isdecimal():
            where = "this machine" if machine == _machine() else "another machine"
            holder = f"process {process} of {where} is at work there since {since}"
        case _:
            holder = "another process is at work there"
    return CtscribeError("E_BUSY", f"{what} must be written by one run at a time, but {holder}")


def _machine() -> str:
    """A number that the system draws when it starts; names nobody."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return "unknown"
