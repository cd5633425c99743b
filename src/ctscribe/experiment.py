"""A recipe's grid: train, write and score every cell, then Tables 1 to 3.

Validation chooses each cell's checkpoint; the test split is read once per cell, with it.
Every step of a cell is skipped when its result is there, so an interrupted experiment goes on.
"""

import os
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, read_json, write_json, write_text
from ctscribe.rows import PredictionRow, StudyRow, read_rows
from ctscribe.run import open_run

if TYPE_CHECKING:
    from ctscribe.tables import Table

STEPS = ("pairs.jsonl", "train/best", "predictions.jsonl", "gap.json", "scores.json")
"""What a cell leaves behind, in order."""
TEMPLATE_SCORES = "scores_template.json"
"""Also, where a run has finding queries: what stock sentences of its labels score."""


@final
@dataclass(frozen=True)
class Cell:
    """One training run of the grid."""

    strategy: str
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Folder name, e.g. ``heter-beta0.1-seed0``."""
        return f"{self.strategy}-beta{self.beta:g}-seed{self.seed}"


def grid(recipe: Recipe) -> list[Cell]:
    """The cells of Tables 1 and 2 without repetition; β = 0 is Origin, trained once per seed."""
    beta = recipe.objective.beta
    chosen = {("origin", 0.0), ("gauss", beta), ("heter", beta)}
    chosen |= {
        (recipe.experiment.beta_strategy, other) for other in recipe.experiment.betas if other
    }
    order = ("origin", "gauss", "heter")
    cells = sorted(chosen, key=lambda cell: (order.index(cell[0]), cell[1]))
    return [Cell(*cell, seed) for seed in recipe.experiment.seeds for cell in cells]


def cell_recipe(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe with which `cell` is trained."""
    tree = recipe.model_dump()
    tree["pairs"] |= {"strategy": cell.strategy, "seed": cell.seed}
    tree["objective"]["beta"] = cell.beta
    tree["train"]["seed"] = cell.seed
    return Recipe.model_validate(tree)


def run_experiment(
    out: Path,
    prepared_dir: Path,
    recipe: Recipe,
    start: Path | None,
    *,
    parallel: int = 1,
    progress: ProgressCallback,
) -> list[Path]:
    """Runs every cell and writes the tables.

    Args:
        out: Experiment folder; reopened when it holds the same request.
        prepared_dir: What `prepare` wrote.
        recipe: With its grid.
        start: Starting checkpoint; None takes the recipe's own weights.
        parallel: Cells trained at the same time, each in a process of its own.
        progress: Told (finished steps, all steps).

    Returns:
        Paths of the Markdown tables.

    Raises:
        CtscribeError: The first error of a cell; what its cells have finished is kept.
    """
    open_run(out, "experiment", experiment_request(recipe))
    folders = {cell: out / "cells" / cell.name for cell in grid(recipe)}
    jobs = [
        (folder, prepared_dir, cell_recipe(recipe, cell), start) for cell, folder in folders.items()
    ]
    _store_features(prepared_dir, recipe, start)
    threads = max(1, (os.cpu_count() or 1) // parallel)
    with ProcessPoolExecutor(
        parallel, mp_context=get_context("spawn"), initializer=_use_threads, initargs=(threads,)
    ) as pool:
        _follow([pool.submit(run_cell, *job) for job in jobs], list(folders.values()), progress)
    write_json(out / "comparison.json", compare_cells(prepared_dir, recipe, folders))
    return write_tables(out, recipe, folders)


def experiment_request(recipe: Recipe) -> dict[str, Any]:
    """What identifies an experiment folder."""
    return {"recipe": recipe.model_dump(mode="json")}


def run_cell(folder: Path, prepared_dir: Path, recipe: Recipe, start: Path | None) -> None:
    """Pairs, training, test reports, mismatch gap and scores of one cell; skips what is there."""
    from ctscribe.card.measure import measure_gap
    from ctscribe.evaluate.scores import evaluate
    from ctscribe.generate import generate
    from ctscribe.pairs.build import build_training_pairs
    from ctscribe.pairs.splits import studies_of
    from ctscribe.train.stage import train

    pairs, run_dir, predictions, gap, scores = (folder / step for step in STEPS)
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    fraction = recipe.pairs.validation_fraction
    training, test = (studies_of(studies, split, fraction) for split in ("train", "test"))
    if not pairs.exists():
        build_training_pairs(prepared_dir, folder, recipe.pairs)
    train(run_dir.parent, prepared_dir, pairs, recipe, start)
    generate(run_dir.parent, prepared_dir, recipe, "test", predictions)
    if not gap.exists():
        write_json(gap, measure_gap(run_dir.parent, prepared_dir, recipe, test))
    if recipe.model.slice_attention and not (folder / TEMPLATE_SCORES).exists():
        rows_written = _write_template(run_dir.parent, prepared_dir, recipe)
        write_json(
            folder / TEMPLATE_SCORES, evaluate(rows_written, test, training, recipe.evaluate)
        )
    if not scores.exists():
        rows_written = read_rows(predictions, PredictionRow)
        write_json(scores, evaluate(rows_written, test, training, recipe.evaluate))


def _write_template(run_dir: Path, prepared_dir: Path, recipe: Recipe) -> list[PredictionRow]:
    """What a run with finding queries says by its labels alone."""
    from ctscribe.confidence.stage import calibrate
    from ctscribe.confidence.template import generate_template

    calibrate(run_dir, prepared_dir, recipe)
    target = run_dir / "predictions_test_template.jsonl"
    return generate_template(run_dir, prepared_dir, recipe, "test", target)


def compare_cells(
    prepared_dir: Path, recipe: Recipe, folders: Mapping[Cell, Path]
) -> dict[str, Any]:
    """Every variant and weight against Origin on the test split; see `evaluate.compare`."""
    from ctscribe.evaluate.compare import compare
    from ctscribe.pairs.splits import studies_of

    written: dict[str, list[list[PredictionRow]]] = {}
    for cell, folder in folders.items():
        rows = read_rows(folder / "predictions.jsonl", PredictionRow)
        title = f"{cell.strategy.capitalize()}, β = {cell.beta:g}" if cell.beta else "Origin"
        written.setdefault(title, []).append(rows)
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    test = studies_of(studies, "test", recipe.pairs.validation_fraction)
    return compare(written.pop("Origin"), written, test, recipe.evaluate)


def write_tables(out: Path, recipe: Recipe, folders: Mapping[Cell, Path]) -> list[Path]:
    """Tables 1 to 3 as Markdown, CSV and LaTeX beside each other in ``out``."""
    from ctscribe.tables import to_csv, to_latex, to_markdown

    written = []
    for number, table in enumerate(experiment_tables(out, recipe, folders), 1):
        for suffix, render in ((".md", to_markdown), (".csv", to_csv), (".tex", to_latex)):
            write_text(out / f"table{number}{suffix}", render(table))
        written.append(out / f"table{number}.md")
    return written


def experiment_tables(out: Path, recipe: Recipe, folders: Mapping[Cell, Path]) -> "list[Table]":
    """Tables 1 and 2 from the scores of every cell, and Table 3, which differences hold.

    Args:
        out: Experiment folder with its comparison.
        recipe: The experiment's.
        folders: Of all cells of its grid, finished.
    """
    from ctscribe.tables import table_1, table_2, table_3

    measured: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for cell, folder in folders.items():
        scores = read_json(folder / "scores.json") | {"gap": read_json(folder / "gap.json")}
        measured.setdefault((cell.strategy, cell.beta), []).append(scores)
    beta = recipe.objective.beta
    origin = measured["origin", 0.0]
    other = recipe.experiment.beta_strategy
    variants = {
        "Origin": origin,
        "Ours-Gauss": measured["gauss", beta],
        "Ours-Heter": measured["heter", beta],
    }
    if recipe.model.slice_attention:
        variants["Labels → template (Origin)"] = [
            read_json(folder / TEMPLATE_SCORES)
            for cell, folder in folders.items()
            if cell.strategy == "origin"
        ]
    betas = {b: measured[other, b] if b else origin for b in recipe.experiment.betas}
    comparison = read_json(out / "comparison.json")
    return [table_1(variants, beta), table_2(betas, other), table_3("Origin", comparison)]


def _store_features(prepared_dir: Path, recipe: Recipe, start: Path | None) -> None:
    """Once for all cells, before they run side by side."""
    from ctscribe.model.checkpoint import load_model
    from ctscribe.model.features import store_features

    if recipe.model.freeze_tower:
        weights = start or recipe.model.weights or recipe.model.preset
        qwen, _ = load_model(weights, recipe.model.dtype)
        studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
        store_features(
            qwen,
            prepared_dir,
            studies,
            windows=recipe.slices.windows,
            noise=True,
            merged=recipe.model.freeze_merger,
        )


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _follow(jobs: list[Future[None]], folders: list[Path], progress: ProgressCallback) -> None:
    """Reports progress by the files that appear, and raises the first error."""
    pending = set(jobs)
    while pending:
        progress(_num_finished(folders), len(STEPS) * len(folders))
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        failed = next((job for job in done if job.exception()), None)
        if failed:
            for job in pending:
                job.cancel()
            _reraise(failed)
    progress(_num_finished(folders), len(STEPS) * len(folders))


def _num_finished(folders: list[Path]) -> int:
    return sum((folder / step).exists() for folder in folders for step in STEPS)


def _reraise(job: Future[None]) -> None:
    error = job.exception()
    if error is None or isinstance(error, CtscribeError):
        job.result()
    raise CtscribeError(
        "E_CELL",
        f"every cell of an experiment must finish, but one ended with {type(error).__name__}: "
        f"{error}",
    ) from error
