"""The ledger of a prepared folder: which volumes are done or failed, without opening their files.

The authority is each volume's own record, written last and checked by CRC. The ledger repeats it
beside the size and modification time of each output file, as git's index does for a working tree: a
row is valid while the files still have that size and time, so they need not be read. If the ledger
or a row is missing, outdated or damaged, the files themselves are checked, which only takes time.

It is one SQLite file in WAL mode, so that it can be read while it is written. WAL mode works only
between processes of one machine, so only the process that drives a run opens it; workers do not,
and each shard has its own.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, final

from isal.isal_zlib import crc32

from ctscribe.base.errors import CtscribeError

Files = dict[str, tuple[int, int]]
"""Path within the prepared folder → (bytes, modification time in ns)."""
_TABLE = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY,
    code TEXT,  -- of the failure; NULL when the volume is done
    reason TEXT,
    record TEXT,  -- JSON
    files TEXT,  -- JSON
    crc32 INTEGER  -- of the columns before
) WITHOUT ROWID
"""
_OF_THE_DISK = {
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM),
}
"""Errors of the disk or of locks, which a new ledger would meet too."""
_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Python raises the latter if SQLite's error message quotes bytes of a damaged file."""
_WRITE = "INSERT OR REPLACE INTO volumes VALUES (?, ?, ?, ?, ?, ?)"


@final
class Ledger:
    """The rows of an open database; see `open_ledger`."""

    def __init__(self, database: sqlite3.Connection, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def find(
        self, name: str, request: dict[str, Any], outputs: Sequence[Path]
    ) -> dict[str, Any] | None:
        """A volume's record if it contains this request and its outputs are unchanged, else None.

        A row with a wrong checksum is ignored.
        """
        row = None
        with suppress(*_ERRORS):
            row = self._database.execute(
                "SELECT * FROM volumes WHERE name = ? AND code IS NULL", (name,)
            ).fetchone()
        if row is None or _crc32_of(row[:-1]) != row[-1]:
            return None
        record: dict[str, Any] = json.loads(row[3])
        if not request.items() <= record.items():
            return None
        before = {path: tuple(state) for path, state in json.loads(row[4]).items()}
        now = _state(self._folder, outputs)
        return record if now is not None and now.items() <= before.items() else None

    def done(self, name: str, record: dict[str, Any], outputs: Sequence[Path]) -> None:
        """Notes that a volume is prepared.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        files = _state(self._folder, outputs)
        if files is not None:
            self._write(name, None, None, json.dumps(record), json.dumps(files))

    def failed(self, name: str, code: str, reason: str) -> None:
        """Notes that a volume could not be prepared, and why.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        self._write(name, code, reason, None, None)

    def _write(self, *row: str | None) -> None:
        try:
            self._database.execute(_WRITE, (*row, _crc32_of(row)))
        except _ERRORS as error:
            raise _not_writable(self._folder, error) from error


@contextmanager
def open_ledger(path: Path, folder: Path, shards: Sequence[Path] = ()) -> Iterator[Ledger]:
    """Opens the ledger of a prepared folder, or creates it from the ledgers of its shards.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    new = not path.exists()
    try:
        try:
            database = _open(path)
        except _ERRORS as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
                raise
            for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                part.unlink(missing_ok=True)
            database = _open(path)
    except _ERRORS as error:
        raise _not_writable(folder, error) from error
    with closing(database):
        if new:
            _take_over(database, shards)
        yield Ledger(database, folder)


def _open(path: Path) -> sqlite3.Connection:
    """Opens and checks a database; raises ``sqlite3.DatabaseError`` if it is damaged."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        whole = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        database.execute(_TABLE)
        columns = database.execute("PRAGMA table_info(volumes)").fetchall()
        if not whole or len(columns) != _WRITE.count("?"):
            raise _damaged()
    except _ERRORS:
        database.close()
        raise
    return database


def _damaged() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("damaged, or of an earlier version")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _take_over(database: sqlite3.Connection, shards: Sequence[Path]) -> None:
    database.execute("BEGIN")
    for shard in shards:
        with suppress(*_ERRORS), closing(sqlite3.connect(shard)) as other:
            rows = other.execute("SELECT * FROM volumes").fetchall()
            database.executemany(_WRITE, rows)
    database.execute("COMMIT")


def _crc32_of(columns: Sequence[object]) -> int:
    return int(crc32(json.dumps(columns).encode()))


def _state(folder: Path, outputs: Sequence[Path]) -> Files | None:
    try:
        states = {str(path.relative_to(folder)): path.stat() for path in outputs}
    except OSError:
        return None
    return {path: (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def _not_writable(folder: Path, error: Exception) -> CtscribeError:
    return CtscribeError("E_WRITE", f"the ledger of {folder} must be writable, but {error}")
