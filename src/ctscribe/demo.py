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
    """Opens a stage by its name, and by what it counts where it can go on."""

    def __call__(
        self, title: str, unit: str | None = None
    ) -> AbstractContextManager[ProgressCallback]:
        """Yields what is told (done, all)."""
        ...


@final
@dataclass(frozen=True)
class DemoResult:
    """What to look at."""

    tables: tuple[Path, ...]
    pages: tuple[Path, ...]


def run_demo(out: Path, recipe: Recipe, *, processes: int, stage: Stage) -> DemoResult:
    """Draws patients, prepares them, runs the experiment, reports one patient.

    Starts from the checkpoint that comes with ctscribe, or warms up a tower of its own where the
    recipe asks for another.

    Args:
        out: Demo folder; an interrupted demo continues there and ends with the same tables.
        stage: Tells how far each part is.

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_BUSY``.
    """
    from ctscribe.data.prepare import prepare
    from ctscribe.learn.warm_up import shipped_start, warm_up
    from ctscribe.phantom.dataset import write_dataset
    from ctscribe.show.report import save_report
    from ctscribe.show.scoreboard import write_scoreboard
    from ctscribe.write.writer import ReportWriter

    with one_writer(out):
        open_run(out, "experiment", experiment_request(recipe))
        data, prepared = out / "data", Prepared(out / "prepared")
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


def _a_test_volume(data: Path, prepared: Prepared, recipe: Recipe) -> Path:
    """The test scan with the most findings: there is something to look at."""
    busiest = max(
        prepared.split("test"), key=lambda study: (sum(study.labels or ()), study.volume_name)
    )
    return CtRateTree(data).volume_path(busiest.volume_name, recipe.phantom.flavour)
