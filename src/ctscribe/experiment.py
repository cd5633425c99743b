"""Runs an experiment: trains and scores every cell of a recipe's grid, and writes Tables 1 to 3.

Each cell's checkpoint is chosen on validation; the test split is used once per cell, with that
checkpoint. A step whose result exists is skipped, so an interrupted experiment can be continued.
"""

import os
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, write_json
from ctscribe.base.grid import STEPS, TEMPLATE_SCORES, TITLES, Cell, cell_recipe, grid
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, read_rows, sha256_of_rows
from ctscribe.base.runs import claim, is_made_of, open_run, require_same_run, start_sha256
from ctscribe.base.workers import worker_pool
from ctscribe.data.prepared import Prepared
from ctscribe.show.experiment_tables import write_experiment_tables

if TYPE_CHECKING:
    from ctscribe.write.writer import ReportWriter


def run_experiment(
    out: Path,
    prepared: Prepared,
    recipe: Recipe,
    start: str | Path | None,
    *,
    parallel: int = 1,
    progress: ProgressCallback,
    storing: ProgressCallback = lambda done, total: None,
) -> list[Path]:
    """Runs every cell and writes the tables.

    Args:
        out: Experiment folder; continued when it holds the same request.
        prepared: The data set.
        recipe: The recipe, with its grid.
        start: Starting checkpoint; None takes the recipe's preset.
        parallel: Cells trained at the same time, each in a process of its own.
        progress: Called with (steps finished, all steps).
        storing: Called before that with (volumes whose features are stored, all volumes).

    Returns:
        Paths of the Markdown tables.

    Raises:
        CtscribeError: ``E_BUSY``, ``E_PREPARED`` and other errors that concern all cells, before
            anything is written; else the first error of a cell. Finished steps are kept.
    """
    if recipe.experiment.ours:
        _require_queries(start)
    prepared.require(recipe)
    request = experiment_request(recipe)
    folders = {cell: out / "cells" / cell.name for cell in grid(recipe)}
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with one_writer(out):
        require_same_run(out, "experiment", request)
        _require_studies(prepared, recipe)
        _store_features(prepared, recipe, start, storing)
        open_run(out, "experiment", request)
        studies = prepared.sha256(prepared.studies)
        begun = start_sha256(start or recipe.model.preset)
        claim(out / "cells", {"studies_sha256": studies, "start": begun})
        with worker_pool(parallel, partial(_use_threads, threads)) as pool:
            jobs = [
                pool.submit(run_cell, folder, prepared, cell_recipe(recipe, cell), start)
                for cell, folder in folders.items()
            ]
            _follow(jobs, list(folders.values()), progress)
        write_json(out / "comparison.json", compare_cells(prepared, recipe, folders))
        return write_experiment_tables(out, recipe, folders)


def experiment_request(recipe: Recipe) -> dict[str, Any]:
    """What an experiment depends on, by which its folder is recognised."""
    return {"recipe": recipe.as_asked()}


def run_cell(folder: Path, prepared: Prepared, recipe: Recipe, start: str | Path | None) -> None:
    """Pairs, training, test reports, mismatch gap and scores of one cell; skips finished steps."""
    from ctscribe.learn.pairs.build import build_training_pairs
    from ctscribe.learn.train.stage import train
    from ctscribe.measure.card import measure_gap
    from ctscribe.measure.scores import evaluate
    from ctscribe.measure.tune import tune
    from ctscribe.write.calibration import read_tuned
    from ctscribe.write.generate import generate
    from ctscribe.write.writer import ReportWriter

    pairs, best, predictions, gap, scores = (folder / step for step in STEPS)

    def write_scores(path: Path, rows: list[PredictionRow]) -> None:
        inputs = {"predictions_sha256": sha256_of_rows(rows)}
        if not is_made_of(path, inputs):
            test, training = prepared.split("test"), prepared.split("train")
            write_json(path, evaluate(rows, test, training, recipe.evaluate) | {"inputs": inputs})

    if not pairs.exists():
        build_training_pairs(prepared, folder, recipe.pairs)
    train(best.parent, prepared, pairs, recipe, start)
    writer = ReportWriter(best.parent)
    if recipe.model.cues and read_tuned(best.parent, writer.weights_sha256) is None:
        tune(writer, prepared)
        writer = ReportWriter(best.parent)
    has_queries = recipe.model.cues or recipe.model.slice_attention
    if has_queries and not (folder / TEMPLATE_SCORES).exists():
        write_scores(folder / TEMPLATE_SCORES, _write_template(writer, prepared))
    rows = generate(writer, prepared, "test", predictions)
    of_weights = {"weights_sha256": writer.weights_sha256}
    if not is_made_of(gap, of_weights):
        write_json(gap, measure_gap(writer, prepared) | {"inputs": of_weights})
    write_scores(scores, rows)


def _write_template(writer: "ReportWriter", prepared: Prepared) -> list[PredictionRow]:
    """Writes the template reports of a run with finding queries: its labels in stock sentences."""
    from ctscribe.measure.calibrate import calibrate
    from ctscribe.write.generate import generate_template

    calibrate(writer, prepared, "validation")  # the test split is read once, further down
    target = writer.run_dir / "predictions_test_template.jsonl"
    return generate_template(writer, prepared, "test", target)


def compare_cells(
    prepared: Prepared, recipe: Recipe, folders: Mapping[Cell, Path]
) -> dict[str, Any]:
    """Every variant and weight against Origin on the test split; see `measure.compare`."""
    from ctscribe.measure.compare import compare

    written: dict[str, list[list[PredictionRow]]] = {}
    for cell, folder in folders.items():
        rows = read_rows(folder / "predictions.jsonl", PredictionRow)
        title = TITLES[cell.variant] + (f", β = {cell.beta:g}" if cell.beta else "")
        written.setdefault(title, []).append(rows)
    return compare(written.pop("Origin"), written, prepared.split("test"), recipe.evaluate)


def _require_studies(prepared: Prepared, recipe: Recipe) -> None:
    """Checks, before anything is trained, that the studies suffice for every cell."""
    from ctscribe.learn.pairs.build import build_pairs
    from ctscribe.learn.train.validation import validation_pairs

    prepared.scans("train")
    prepared.scans("test")
    validation_pairs(prepared.split("validation"))
    for pairs in dict.fromkeys(cell_recipe(recipe, cell).pairs for cell in grid(recipe)):
        build_pairs(prepared.split("train"), pairs, prepared)


def _store_features(
    prepared: Prepared, recipe: Recipe, start: str | Path | None, progress: ProgressCallback
) -> None:
    """Stores features once for all cells; raises where the weights cannot be loaded."""
    from ctscribe.learn.model.checkpoint import load_model
    from ctscribe.learn.model.features import store_all

    if recipe.model.freeze_tower:
        store_all(prepared, recipe, start, noise=True, progress=progress)
    else:
        load_model(start or recipe.model.preset, recipe.model.dtype)


def _require_queries(start: str | Path | None) -> None:
    """Checks, before anything is trained, that `tune` will have finding queries."""
    from ctscribe.learn.model.finding_queries import ATTENTION_FILE, read_warmed_head

    folder = Path(start or "")
    if read_warmed_head(folder) is None and not (folder / ATTENTION_FILE).is_file():
        raise CtscribeError(
            "E_NO_QUERIES",
            "experiment.ours needs starting weights with finding queries, but "
            f"{start or 'the preset'} has none",
        )


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _follow(jobs: list[Future[None]], folders: list[Path], progress: ProgressCallback) -> None:
    """Waits for all cells, reports progress by the files that exist, and raises the first error."""
    pending = set(jobs)
    while pending:
        progress(_num_finished(folders), len(STEPS) * len(folders))
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        error = next((error for job in done if (error := job.exception())), None)
        if error is None:
            continue
        for job in pending:
            job.cancel()
        if isinstance(error, CtscribeError):
            raise error
        raise CtscribeError(
            "E_CELL",
            f"every cell of an experiment must finish, but one ended with {type(error).__name__}: "
            f"{error}",
        ) from error
    progress(_num_finished(folders), len(STEPS) * len(folders))


def _num_finished(folders: list[Path]) -> int:
    return sum((folder / step).exists() for folder in folders for step in STEPS)
