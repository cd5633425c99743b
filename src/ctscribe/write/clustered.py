"""Writes the reports of a split on a Ray cluster.

In: as for `generate`, on storage that all machines mount under the same paths. Out: the same file.
Each worker loads the run's weights; this process distributes batches and writes the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback
from ctscribe.base.recipe import GenerateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.types import Split
from ctscribe.data.engines.ray import work_by_actors
from ctscribe.data.prepared import Prepared
from ctscribe.write.cue_table import CueTable
from ctscribe.write.generate import open_reports, with_table_cues, write_batch
from ctscribe.write.writer import ReportWriter

Batch = Sequence[StudyRow]


@final
@dataclass(frozen=True)
class WriterOf:
    """Picklable factory of a worker's function, which writes the reports of a batch."""

    run_dir: Path
    generate: GenerateConfig
    prepared_dir: Path
    cues: CueTable | None

    def __call__(self) -> Callable[[Batch], list[PredictionRow]]:
        """Loads the weights; returns the function."""
        writer, prepared = ReportWriter(self.run_dir), Prepared(self.prepared_dir)
        writer.generate = self.generate

        def write(batch: Batch) -> list[PredictionRow]:
            view = writer.features(prepared, batch).visual
            return write_batch(writer, batch, with_table_cues(view, self.cues))

        return write


def generate_clustered(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_path: Path,
    *,
    cues: CueTable | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> list[PredictionRow]:
    """As `generate`, with one worker per GPU of a running Ray cluster, or per CPU without GPUs.

    The batch of a worker that is lost is given to another one; see `work_by_actors`.

    Raises:
        CtscribeError: As `generate`; ``E_ENGINE`` without a cluster, ``E_WORKER`` for a batch that
            ends every worker.
    """
    with open_reports(writer, prepared, split, out_path, cues=cues) as file:
        missing = file.missing()
        num_missing = len(missing)
        progress(file.num_own - num_missing, file.num_own)
        begin = WriterOf(writer.run_dir.resolve(), writer.generate, prepared.folder.resolve(), cues)
        for rows in work_by_actors(begin, file.batches(missing), lost=_lost):
            num_missing -= file.append_missing(rows, missing)
            progress(file.num_own - num_missing, file.num_own)
        return file.finish()


def _lost(batch: Batch) -> list[PredictionRow]:
    raise CtscribeError(
        "E_WORKER",
        f"the report of {batch[0].volume_name} must be written to its end, but three workers were "
        "ended while they wrote it, perhaps for want of memory",
    )
