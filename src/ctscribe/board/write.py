"""A finished experiment → ``scoreboard.html`` beside its tables."""

from pathlib import Path

from ctscribe.board.groups import board_facts, study_groups
from ctscribe.board.plots import board_plots
from ctscribe.config import Recipe
from ctscribe.evaluate.scans import one_row_per_scan
from ctscribe.experiment import experiment_tables, grid
from ctscribe.export.scoreboard import scoreboard_page
from ctscribe.files import read_json, write_text
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import PredictionRow, StudyRow, read_rows


def write_scoreboard(out: Path, prepared_dir: Path, recipe: Recipe) -> Path:
    """Writes the page and returns its path.

    The studies are those of the cell with the lowest validation loss: the test split has no say.

    Args:
        out: Experiment folder with every cell finished.
        prepared_dir: What `prepare` wrote.
        recipe: The experiment's.

    Raises:
        CtscribeError: ``E_MISSING`` when a cell is not finished.
    """
    cells = {cell: out / "cells" / cell.name for cell in grid(recipe)}
    tables = experiment_tables(out, recipe, cells)
    selected = min(cells, key=lambda cell: _validation_loss(cells[cell]))
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    test = one_row_per_scan(studies_of(studies, "test", recipe.pairs.validation_fraction))
    written = read_rows(cells[selected] / "predictions.jsonl", PredictionRow)
    groups = study_groups(test, written, prepared_dir, recipe.slices.windows)
    plots = board_plots(tables, cells, recipe)
    shown = f"studies below: {selected.name}, the run with the lowest validation loss"
    path = out / "scoreboard.html"
    page = scoreboard_page("Scoreboard", board_facts(test, shown), tables, plots, groups)
    write_text(path, page)
    return path


def _validation_loss(folder: Path) -> float:
    return float(read_json(folder / "train" / "result.json")["best_validation_loss"])
