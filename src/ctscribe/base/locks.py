"""File locks: folders and files that one process, or several together, may write."""

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

    A stage that runs inside the block may lock the same folder again. Temporary files that killed
    processes left in the folder or below it are removed before the block, and those of its own
    workers after it; files that are still being written are left.

    The lock is the system's own (flock), so the lock of a dead process never blocks. It holds
    between machines where the storage supports that, as NFS from version 4 and Lustre mounted with
    flock do. On storage with locks per machine, such as NFS with ``local_lock`` or Lustre with
    ``localflock``, it keeps out processes of the same machine only; on storage without locks it
    keeps out nobody.

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
    """Locks a folder for several processes that write different files; keeps out `one_writer`.

    No temporary files are removed.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(folder, folder / LOCK, fcntl.LOCK_SH):
        yield


@contextmanager
def one_writer_of(path: Path) -> Iterator[None]:
    """As `one_writer`, for a file, or a folder that appears at once; its siblings stay unlocked.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(path, _beside(path), fcntl.LOCK_EX):
        remove_parts(path.parent, of=path.stem)
        yield


@contextmanager
def many_writers_of(path: Path) -> Iterator[None]:
    """As `many_writers`, for one file that several processes write; keeps out `one_writer_of`.

    Raises:
        CtscribeError: As `one_writer`.
    """
    with _locked(path, _beside(path), fcntl.LOCK_SH):
        yield


def _beside(path: Path) -> Path:
    """The lock file of a single file, beside it."""
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def _locked(what: Path, lock: Path, kind: int) -> Iterator[None]:
    """Holds the lock file ``lock`` of ``what`` during the block, and removes it afterwards.

    A folder that was created for the lock is removed too if it stayed empty.
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
        with file, suppress(OSError):  # others still share it, or it cannot be removed
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
        file.close()  # its former holder removed it before we locked it


def _sign(what: Path, file: FileIO) -> None:
    """Writes into the lock file who holds it and since when."""
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
    """The random id that the system draws at boot; it identifies no person."""
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return "unknown"
