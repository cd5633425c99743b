"""A finished experiment → ``scoreboard.html`` beside its tables."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ctscribe import __version__
from ctscribe.board.plots import board_plots
from ctscribe.board.studies import look_alikes, show_study
from ctscribe.config import Recipe
from ctscribe.evaluate.scans import one_row_per_scan
from ctscribe.experiment import Cell, experiment_tables, grid
from ctscribe.export.comparison import NUM_WORST, Comparison, compare_reports, find_worst
from ctscribe.export.scoreboard import StudyGroup, scoreboard_page
from ctscribe.files import read_json, write_text
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import PredictionRow, StudyRow, read_rows

ALIKE = (
    "Of all pairs of test scans of different patients, the hundredth part whose references share "
    "most word pairs; of these, the two whose slices differ most in grey. Reports like these are "
    "why a model can score well without looking."
)
"""How the look-alike reports are chosen."""


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
    tables = experiment_tables(recipe, cells)
    selected = min(cells, key=lambda cell: _validation_loss(cells[cell]))
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    test = one_row_per_scan(studies_of(studies, "test", recipe.pairs.validation_fraction))
    compared = _compare(test, cells[selected] / "predictions.jsonl")
    by_scan = {study.scan_id: study for study in test}
    groups = []
    if pair := look_alikes(test, prepared_dir):
        groups.append(("Look-alike reports", ALIKE, [compared[study.scan_id] for study in pair]))
    worst = find_worst(compared.values(), NUM_WORST)
    groups.append((f"The {len(worst)} worst studies", "Lowest F1 over the 18 findings.", worst))
    shown = [
        StudyGroup(
            title,
            note,
            tuple(show_study(each, by_scan[each.study], prepared_dir, recipe) for each in chosen),
        )
        for title, note, chosen in groups
    ]
    path = out / "scoreboard.html"
    plots = board_plots(tables, cells, recipe)
    write_text(path, scoreboard_page("Scoreboard", _facts(selected, test), tables, plots, shown))
    return path


def _validation_loss(folder: Path) -> float:
    return float(read_json(folder / "train" / "result.json")["best_validation_loss"])


def _compare(test: Sequence[StudyRow], predictions: Path) -> Mapping[str, Comparison]:
    """Every test scan's reference beside what was written for it; nothing where nothing was."""
    written = {row.scan_id: row for row in read_rows(predictions, PredictionRow)}
    return {
        study.scan_id: compare_reports(
            study.scan_id,
            reference=_text(study),
            prediction=_text(written.get(study.scan_id)),
            labels=study.labels,
        )
        for study in test
    }


def _text(row: StudyRow | PredictionRow | None) -> str:
    return "" if row is None else f"{row.findings}\n{row.impression}".strip()


def _facts(selected: Cell, test: Sequence[StudyRow]) -> list[str]:
    patients = len({study.patient_id for study in test})
    return [
        f"{len(test)} test scans of {patients} patients",
        f"studies below: {selected.name}, the run with the lowest validation loss",
        f"ctscribe {__version__}",
        datetime.now(UTC).strftime("%Y-%m-%d"),
    ]
