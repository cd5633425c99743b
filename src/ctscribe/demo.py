"""The whole flow on synthetic chest CT, on a laptop, in minutes."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from ctscribe.base.files import ProgressCallback
from ctscribe.base.grid import grid
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import open_run
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepared import Prepared
from ctscribe.experiment import experiment_request, run_experiment


class Stage(Protocol):
    """Opens a progress display for a stage; ``unit`` is what it counts, if it can be continued."""

    def __call__(
        self, title: str, unit: str | None = None
    ) -> AbstractContextManager[ProgressCallback]:
        """Yields a callback that is called with (done, all)."""
        ...


@final
@dataclass(frozen=True)
class DemoResult:
    """The files to look at."""

    tables: tuple[Path, ...]
    pages: tuple[Path, ...]


def run_demo(out: Path, recipe: Recipe, *, processes: int, stage: Stage) -> DemoResult:
    """Draws patients, prepares them, runs the experiment, and drafts a report of one patient.

    Starts from the checkpoint that comes with ctscribe if it fits the recipe, else from a warm-up.

    Args:
        out: Demo folder; an interrupted demo is continued and ends with the same tables.
        recipe: Settings.
        processes: Number of worker processes.
        stage: Displays the progress of each stage.

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_BUSY``.
    """
    from ctscribe.learn.warm_up import shipped_start, warm_up
    from ctscribe.show.report import save_report
    from ctscribe.show.scoreboard import write_scoreboard
    from ctscribe.write.writer import ReportWriter

    with one_writer(out):
        open_run(out, "experiment", experiment_request(recipe))
        data, prepared = out / "data", Prepared(out / "prepared")
        _draw(data, prepared, recipe, processes=processes, stage=stage)
        start = shipped_start(recipe)
        if start is None:
            with stage("Warming up the tower") as progress:
                start = warm_up(out / "start", recipe, processes=processes, progress=progress)
        with stage("Training and testing", "steps") as progress:
            tables = run_experiment(
                out, prepared, recipe, start, parallel=processes, progress=progress
            )
        with stage("Drawing the scoreboard") as progress:
            board = write_scoreboard(out, prepared, recipe)
            progress(1, 1)
        with stage("Reporting one patient") as progress:
            writer = ReportWriter(out / "cells" / grid(recipe)[-1].name / "train")
            draft = writer.report(_a_test_volume(data, prepared, recipe))
            page = save_report(draft, out / "report")["html"]
            progress(1, 1)
        return DemoResult(tuple(tables), (board, page))


def _draw(data: Path, prepared: Prepared, recipe: Recipe, *, processes: int, stage: Stage) -> None:
    """Draws patients and prepares them."""
    from ctscribe.data.prepare import prepare
    from ctscribe.phantom.dataset import write_dataset

    with stage("Drawing patients", "patients") as progress:
        write_dataset(data, recipe.phantom, processes=processes, progress=progress)
    with stage("Preparing volumes", "volumes") as progress:
        prepare(
            data,
            prepared.folder,
            recipe.volume,
            recipe.slices,
            recipe.splits,
            keep="slices",
            processes=processes,
            progress=progress,
        )


def _a_test_volume(data: Path, prepared: Prepared, recipe: Recipe) -> Path:
    """The test scan with the most findings."""
    busiest = max(
        prepared.split("test"), key=lambda study: (sum(study.labels or ()), study.volume_name)
    )
    return CtRateTree(data).volume_path(busiest.volume_name, recipe.phantom.flavour)
