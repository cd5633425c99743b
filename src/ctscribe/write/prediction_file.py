"""``predictions.jsonl`` while it is written, by one process or by several that share the scans.

In: the scans, and this process's share of them. Out: one row per scan, in the scans' order.

The rows that are there say what is done, so an interrupted call goes on behind them. Each row has a
checksum; a last line that was cut off in the middle is dropped.
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
class PredictionFile:
    """A file of predictions that is being written; `open_prediction_file` locks it.

    Of n processes each writes every n-th batch, into a file of its own in a folder beside. The
    process that finds the rows of all scans there joins them into ``path``. A file begun by any
    number of processes can be finished by any other number.

    Batches are fixed by the scans' order, whoever writes them and wherever an earlier call was
    interrupted: in bfloat16 a report may depend on the others in its batch.
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
        """The file that this process appends to."""
        number, of = self.share
        return self.path if of == 1 else self._parts / f"{number + 1}-of-{of}.jsonl"

    @property
    def _own_batches(self) -> list[Sequence[StudyRow]]:
        size = self.batch_size
        starts = range(0, len(self.scans), size)[self.share[0] :: self.share[1]]
        return [self.scans[start : start + size] for start in starts]

    @property
    def num_own(self) -> int:
        """How many scans are this process's."""
        return sum(map(len, self._own_batches))

    def claim(self, request: dict[str, Any]) -> None:
        """Records beside the file what its rows depend on.

        Raises:
            CtscribeError: ``E_RUN_EXISTS`` when the file was begun with another request.
        """
        claim(self.path, request, has_parts=any(self._parts.glob("*.jsonl")))

    def missing(self) -> list[StudyRow]:
        """This process's scans that have no report yet.

        Raises:
            CtscribeError: ``E_ROW`` for a damaged row, ``E_WRITE``.
        """
        _drop_cut_line(self.own_path)
        done = self._by_scan()
        return [each for batch in self._own_batches for each in batch if each.scan_id not in done]

    def batches(self, missing: Sequence[StudyRow]) -> list[Sequence[StudyRow]]:
        """The whole batches that contain any of these scans."""
        scan_ids = {study.scan_id for study in missing}
        return [b for b in self._own_batches if any(study.scan_id in scan_ids for study in b)]

    def append(self, row: PredictionRow) -> None:
        """Appends a report.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        append_row(self.own_path, row)

    def append_missing(self, rows: Sequence[PredictionRow], missing: Sequence[StudyRow]) -> int:
        """Appends the reports of a batch whose scans are missing; returns their number.

        Raises:
            CtscribeError: ``E_WRITE``.
        """
        scan_ids = {study.scan_id for study in missing}
        new = [row for row in rows if row.scan_id in scan_ids]
        for row in new:
            self.append(row)
        return len(new)

    def finish(self) -> list[PredictionRow]:
        """Writes the rows in the scans' order once all are there; returns those that are.

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
        """The rows that all processes have written so far, in the scans' order.

        Raises:
            CtscribeError: As `missing`.
        """
        done = self._by_scan()
        return [done[study.scan_id] for study in self.scans if study.scan_id in done]

    def _by_scan(self) -> dict[str, PredictionRow]:
        """The rows by scan id; the whole file is read last, as parts are removed once it exists."""
        found: dict[str, PredictionRow] = {}
        parts: list[Path] = []
        with suppress(FileNotFoundError):  # another process is joining the parts at this moment
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
def open_prediction_file(
    path: Path, scans: Sequence[StudyRow], batch_size: int = 1, share: Share = ALONE
) -> Iterator[PredictionFile]:
    """Locks a file of predictions, or this process's part of it, and opens it for writing.

    Raises:
        CtscribeError: ``E_BUSY`` while another call writes it, ``E_WRITE``.
    """
    file = PredictionFile(path, scans, batch_size, share)
    with nullcontext() if share[1] == 1 else many_writers_of(path), one_writer_of(file.own_path):
        yield file


def _drop_cut_line(path: Path) -> None:
    """Drops a half-written last line of a file, or makes the folder of a file that is not there."""
    if not path.exists():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.read_bytes().endswith(b"\n"):
        write_rows(path, read_rows(path, PredictionRow, partial=True))
