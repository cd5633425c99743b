"""Predictions while they are written, by one process or by several that share the scans.

In: the scans and who writes. Out: ``predictions.jsonl``, one row per scan in their order. Its rows
are its ledger: each has a checksum, a last line that an interruption cut is dropped, and what is
there is not written again.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import writing
from ctscribe.base.locks import many_writers_of, one_writer_of
from ctscribe.base.rows import PredictionRow, StudyRow, append_row, read_rows, write_rows
from ctscribe.base.runs import claim
from ctscribe.base.workers import ALONE, Share


@final
@dataclass(frozen=True)
class Growing:
    """A file of predictions that is written; `growing` locks it.

    Of several processes each does every so many batches and appends to a file of its own in a
    folder beside; whichever sees the rows of all scans puts them together. Any number of processes
    goes on with what any other number left.

    Which scans are written together is fixed by their order, whoever writes and wherever it was
    interrupted, because in bfloat16 a report may depend on those beside it.
    """

    path: Path
    scans: Sequence[StudyRow]
    batch_size: int = 1
    share: Share = ALONE

    @property
    def _parts(self) -> Path:
        return self.path.with_suffix(".shards")

    @property
    def own_path(self) -> Path:
        """Where this process appends."""
        number, of = self.share
        return self.path if of == 1 else self._parts / f"{number + 1}-of-{of}.jsonl"

    @property
    def _own_batches(self) -> list[Sequence[StudyRow]]:
        size = self.batch_size
        starts = range(0, len(self.scans), size)[self.share[0] :: self.share[1]]
        return [self.scans[start : start + size] for start in starts]

    @property
    def num_own(self) -> int:
        """Scans of this process."""
        return sum(map(len, self._own_batches))

    def claim(self, request: dict[str, Any]) -> None:
        """Notes beside the file what it is made of.

        Raises:
            CtscribeError: ``E_RUN_EXISTS`` when what is there was asked for otherwise.
        """
        claim(self.path, request, has_parts=any(self._parts.glob("*.jsonl")))

    def missing(self) -> list[StudyRow]:
        """The scans of this process that have no report yet.

        Raises:
            CtscribeError: ``E_ROW`` for a damaged row, ``E_WRITE``.
        """
        _drop_cut_line(self.own_path)
        there = self._by_scan()
        return [each for batch in self._own_batches for each in batch if each.scan_id not in there]

    def batches(self, missing: Sequence[StudyRow]) -> list[Sequence[StudyRow]]:
        """The batches, whole, in which one of these scans is."""
        lacking = {study.scan_id for study in missing}
        return [b for b in self._own_batches if any(study.scan_id in lacking for study in b)]

    def append(self, row: PredictionRow) -> None:
        """Adds a report.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        append_row(self.own_path, row)

    def take(self, rows: Sequence[PredictionRow], missing: Sequence[StudyRow]) -> int:
        """Adds those reports of a batch that are of missing scans; returns how many they are.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        lacking = {study.scan_id for study in missing}
        new = [row for row in rows if row.scan_id in lacking]
        for row in new:
            self.append(row)
        return len(new)

    def finish(self) -> list[PredictionRow]:
        """Puts all rows into the scans' order, if all are there; returns those that are.

        Raises:
            CtscribeError: As `missing`.
        """
        rows = self.rows()
        if len(rows) == len(self.scans):
            if not self.path.exists() or read_rows(self.path, PredictionRow, partial=True) != rows:
                write_rows(self.path, rows)
            shutil.rmtree(self._parts, ignore_errors=True)
        return rows

    def rows(self) -> list[PredictionRow]:
        """The rows that are there, whoever wrote them, in the scans' order.

        Raises:
            CtscribeError: As `missing`.
        """
        there = self._by_scan()
        return [there[study.scan_id] for study in self.scans if study.scan_id in there]

    def _by_scan(self) -> dict[str, PredictionRow]:
        """The whole file comes last, as parts are removed when it is there."""
        found: dict[str, PredictionRow] = {}
        parts: list[Path] = []
        with suppress(FileNotFoundError):  # another process puts all together at this moment
            parts = sorted(self._parts.glob("*.jsonl"))
        for path in (*parts, self.path):
            try:
                rows = read_rows(path, PredictionRow, partial=True)
            except CtscribeError as error:
                if error.code != "E_MISSING":
                    raise
            else:
                found |= {row.scan_id: row for row in rows}
        return found


@contextmanager
def growing(
    path: Path, scans: Sequence[StudyRow], batch_size: int = 1, share: Share = ALONE
) -> Iterator[Growing]:
    """Locks a file of predictions for one process, or this process's part of it.

    Raises:
        CtscribeError: ``E_BUSY`` while it is written otherwise, ``E_WRITE``.
    """
    file = Growing(path, scans, batch_size, share)
    with nullcontext() if share[1] == 1 else many_writers_of(path), one_writer_of(file.own_path):
        yield file


def _drop_cut_line(path: Path) -> None:
    """Takes a half-written last line out of a file that may not be there."""
    if not path.exists():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.read_bytes().endswith(b"\n"):
        write_rows(path, read_rows(path, PredictionRow, partial=True))
