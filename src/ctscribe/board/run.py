"""One run's scores → a page beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscribe.board.groups import board_facts, study_groups
from ctscribe.board.plots import run_plots
from ctscribe.config import PairsConfig
from ctscribe.evaluate.predictions import read_predictions
from ctscribe.evaluate.scans import one_row_per_scan
from ctscribe.export.scoreboard import Plot, scoreboard_page
from ctscribe.files import read_json, write_text
from ctscribe.pairs.splits import Split, studies_of
from ctscribe.rows import StudyRow, read_rows
from ctscribe.tables import breakdown_tables, score_tables


def write_run_board(
    path: Path,
    scores: Mapping[str, Any],
    predictions_path: Path,
    prepared_dir: Path,
    split: Split,
    pairs: PairsConfig,
) -> None:
    """Writes the page of one run, ours or not.

    Args:
        path: The page.
        scores: What `evaluate` made of the predictions.
        predictions_path: The predictions; the loss curve beside them is shown too, if any.
        prepared_dir: What `prepare` wrote: its frames are shown, in its windows.
        split: Whose scans.
        pairs: Says which patients validate.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    scans = one_row_per_scan(studies_of(studies, split, pairs.validation_fraction))
    written = read_predictions(predictions_path, scans)
    windows = read_json(prepared_dir / "prepare.json")["asked"]["slices"]["windows"]
    tables = [*score_tables({"Model": scores}), *breakdown_tables(scores)]
    plots = run_plots("Model", scores)
    loss_curve = predictions_path.with_name("loss_curve.png")
    if loss_curve.exists():
        plots.append(Plot("Loss over the updates.", loss_curve.read_bytes()))
    missing = len(scores["missing"])
    facts = board_facts(scans, f"{missing} of {len(scans)} scans without a report")
    groups = study_groups(scans, written, prepared_dir, windows)
    write_text(path, scoreboard_page("Scoreboard", facts, tables, plots, groups))
