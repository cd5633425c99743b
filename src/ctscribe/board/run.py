"""One run's scores → a page beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscribe.board.groups import board_facts, study_groups, worst_texts
from ctscribe.board.plots import run_plots
from ctscribe.evaluate.predictions import read_predictions
from ctscribe.evaluate.references import References
from ctscribe.evaluate.scans import one_row_per_scan
from ctscribe.export.scoreboard import Plot, scoreboard_page
from ctscribe.files import read_json, write_text
from ctscribe.rows import StudyRow
from ctscribe.tables import breakdown_tables, score_tables


def write_run_board(
    path: Path,
    scores: Mapping[str, Any],
    predictions_path: Path,
    references: References,
) -> None:
    """Writes the page of one run, ours or not.

    Args:
        path: The page.
        scores: What `evaluate` made of the predictions.
        predictions_path: The predictions; the loss curve beside them is shown too, if any.
        references: What they were scored against; the frames of prepared studies are shown, in
            their windows, and reports out of tables alone without any.
    """
    scans = one_row_per_scan(references.studies)
    written = read_predictions(predictions_path, references.studies, references.left_out)
    tables = [*score_tables({"Model": scores}), *breakdown_tables(scores)]
    plots = run_plots("Model", scores)
    loss_curve = predictions_path.with_name("loss_curve.png")
    if loss_curve.exists():
        plots.append(Plot("Loss over the updates.", loss_curve.read_bytes()))
    missing = len(scores["missing"])
    facts = board_facts(scans, f"{missing} of {len(scans)} scans without a report")
    if references.prepared_dir is None:
        facts.append("no volumes given, so no slices are shown")
        groups = [worst_texts(scans, written)]
    else:
        asked = read_json(references.prepared_dir / "prepare.json")["asked"]
        shown = [scan for scan in scans if isinstance(scan, StudyRow)]
        windows = asked["slices"]["windows"]
        groups = study_groups(shown, written, references.prepared_dir, windows)
    write_text(path, scoreboard_page("Scoreboard", facts, tables, plots, groups))
