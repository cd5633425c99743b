"""The scoreboard: tables, figures and telling studies on one self-contained HTML page.

In: a finished experiment, or the scores and predictions of one run, and the prepared studies.
Out: ``scoreboard.html``, or the page beside a run's scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8

from ctscribe.base.about import __version__
from ctscribe.base.files import read_json, write_text
from ctscribe.base.grid import grid
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, ReportedRow, StudyRow, read_rows, unfinished
from ctscribe.data.prepared import Prepared
from ctscribe.measure.predictions import read_predictions
from ctscribe.measure.references import References
from ctscribe.measure.scans import one_row_per_scan
from ctscribe.scan.frames import WINDOWS, apply_window
from ctscribe.show.experiment_tables import experiment_tables
from ctscribe.show.look_alikes import ALIKE, look_alikes
from ctscribe.show.marked_reports import Comparison, compare_reports, find_worst
from ctscribe.show.page import READING_WINDOWS, DrawnSlices, png_uri, render, window_title
from ctscribe.show.score_figures import (
    CaptionedFigure,
    experiment_figures,
    loss_curve,
    run_figures,
)
from ctscribe.show.score_tables import Scores, breakdown_tables, score_tables
from ctscribe.show.tables import Table

NUM_WORST = 20
"""Studies a scoreboard shows."""

MAX_SIDE_PX = 256
"""Slices are drawn at most this large, so that a page of twenty studies stays a page."""


def write_scoreboard(out: Path, prepared: Prepared, recipe: Recipe) -> Path:
    """Writes the page and returns its path.

    The studies are those of the cell with the lowest validation loss, in which a cell that is told
    the true findings has no part: the test split has no say.

    Args:
        out: Experiment folder with every cell finished.
        prepared: Holds the scans.

    Raises:
        CtscribeError: ``E_MISSING`` when a cell is not finished.
    """
    cells = {cell: out / "cells" / cell.name for cell in grid(recipe)}
    tables = experiment_tables(out, recipe, cells)
    losses = {
        cell: read_json(folder / "train" / "result.json")["best_validation_loss"]
        for cell, folder in cells.items()
        if cell.variant != "ours"
    }
    selected = min(losses, key=lambda cell: losses[cell])
    test = one_row_per_scan(prepared.split("test"))
    written = read_rows(cells[selected] / "predictions.jsonl", PredictionRow)
    groups = study_groups(test, written, prepared)
    figures = experiment_figures(tables[1], cells, recipe)
    shown = f"studies below: {selected.name}, the run with the lowest validation loss"
    path = out / "scoreboard.html"
    facts = [*board_facts(test, shown), str(unfinished(written))]
    page = scoreboard_page("Scoreboard", facts, tables, figures, groups)
    write_text(path, page)
    return path


def write_run_board(
    path: Path,
    scores: Scores,
    predictions_path: Path,
    references: References,
) -> None:
    """Writes the page of one run, ours or not.

    Args:
        scores: What `evaluate` made of the predictions.
        predictions_path: The predictions; the loss curve beside them is shown too, if any.
        references: What they were scored against; the frames of prepared studies are shown, in
            their windows, and reports out of tables alone without any.
    """
    scans = one_row_per_scan(references.studies)
    written = read_predictions(predictions_path, references.studies, references.left_out)
    tables = [*score_tables({"Model": scores}), *breakdown_tables(scores)]
    figures = run_figures("Model", scores)
    run_dir = predictions_path.parent
    if all((run_dir / name).exists() for name in ("loss_curve.png", "metrics.jsonl")):
        figures.append(loss_curve("Loss", run_dir))
    missing = len(scores["missing"])
    facts = board_facts(scans, f"{missing} of {len(scans)} scans without a report")
    if (cut := unfinished(written)).known:
        facts.append(str(cut))
    if references.prepared is None:
        facts.append("no volumes given, so no slices are shown")
        groups = [worst_texts(scans, written)]
    else:
        shown = [scan for scan in scans if isinstance(scan, StudyRow)]
        groups = study_groups(shown, written, references.prepared)
    write_text(path, scoreboard_page("Scoreboard", facts, tables, figures, groups))


@final
@dataclass(frozen=True)
class ShownStudy:
    """A study's comparison with its slices, if there are any."""

    comparison: Comparison
    slices: DrawnSlices | None = None


@final
@dataclass(frozen=True)
class StudyGroup:
    """Studies of one system that are shown for the same reason, which ``note`` says."""

    title: str
    note: str
    studies: tuple[ShownStudy, ...]


def scoreboard_page(
    title: str,
    facts: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[CaptionedFigure],
    groups: Sequence[StudyGroup],
) -> str:
    """The page.

    Args:
        facts: Short texts under the title: which system the studies show, date, versions.
        tables: In the order given.
        figures: With their captions.
        groups: Studies, in the order given.
    """
    number = count(1)
    shown = [
        (group, [(f"study-{next(number)}", study) for study in group.studies]) for group in groups
    ]
    return render(
        "scoreboard.html",
        title=title,
        facts=facts,
        tables=tables,
        figures=[(each.caption, png_uri(each.png), png_uri(each.dark_png)) for each in figures],
        groups=shown,
    )


def study_groups(
    scans: Sequence[StudyRow],
    written: Sequence[PredictionRow],
    prepared: Prepared,
) -> list[StudyGroup]:
    """The paper's Figure 2 in our scans, and the studies with the lowest F1.

    Args:
        scans: One row per scan.
        written: What one system wrote for them.
        prepared: Holds their frames.
    """
    compared = _compare(scans, written)
    by_scan = {study.scan_id: study for study in scans}
    groups = []
    if pair := look_alikes(scans, prepared):
        groups.append(("Look-alike reports", ALIKE, [compared[study.scan_id] for study in pair]))
    groups.append(_worst(compared))
    return [
        StudyGroup(
            title,
            note,
            tuple(show_study(each, by_scan[each.study], prepared) for each in chosen),
        )
        for title, note, chosen in groups
    ]


def worst_texts(scans: Sequence[ReportedRow], written: Sequence[PredictionRow]) -> StudyGroup:
    """The studies with the lowest F1, of which there is nothing but text."""
    title, note, chosen = _worst(_compare(scans, written))
    return StudyGroup(title, note, tuple(map(ShownStudy, chosen)))


def show_study(comparison: Comparison, study: StudyRow, prepared: Prepared) -> ShownStudy:
    """A study's comparison with its frames, in the windows that a reader uses."""
    frames = prepared.frames(study)
    factor = -(-max(frames.shape[1:3]) // MAX_SIDE_PX)
    across, down = np.linalg.norm(np.array(study.frame_to_ras)[:3, :2], axis=0).tolist()
    images = dict(_in_reading_windows(frames, factor, prepared))
    spacing_mm = (across * factor, down * factor)
    slices = DrawnSlices(images, study.slice_indices, study.position_mm, spacing_mm)
    return ShownStudy(comparison, slices)


def board_facts(scans: Sequence[ReportedRow], shown: str) -> list[str]:
    """Short texts under the title; ``shown`` says whose reports the studies are."""
    patients = len({study.patient_id for study in scans})
    return [
        f"{len(scans)} scans of {patients} patients",
        shown,
        f"ctscribe {__version__}",
        datetime.now(UTC).strftime("%Y-%m-%d"),
    ]


def _worst(compared: Mapping[str, Comparison]) -> tuple[str, str, list[Comparison]]:
    worst = find_worst(compared.values(), NUM_WORST)
    return f"The {len(worst)} worst studies", "Lowest F1 over the 18 findings.", worst


def _compare(
    scans: Sequence[ReportedRow], written: Sequence[PredictionRow]
) -> Mapping[str, Comparison]:
    """Every scan's reference beside what was written for it; nothing where nothing was."""
    rows = {row.scan_id: row for row in written}
    return {
        study.scan_id: compare_reports(
            study.scan_id,
            reference=_text(study),
            prediction=_text(rows.get(study.scan_id)),
            labels=study.labels,
        )
        for study in scans
    }


def _text(row: ReportedRow | PredictionRow | None) -> str:
    return "" if row is None else f"{row.findings}\n{row.impression}".strip()


def _in_reading_windows(
    frames: UInt8[np.ndarray, "slices height width 3"], factor: int, prepared: Prepared
) -> Iterator[tuple[str, UInt8[np.ndarray, "slices rows columns"]]]:
    """Title and images of each window: the frames' own, or else drawn from their first."""
    own = WINDOWS[prepared.windows]
    first = own[0]
    slabs = "maximum of slabs, " if prepared.projection == "slab" else ""
    for window in READING_WINDOWS:
        if window in own:
            yield window_title(window), _block_means(frames[..., own.index(window)], factor)
            continue
        share = _block_means(frames[..., 0], factor) / np.float32(255)
        hu = first.center_hu + (share - np.float32(0.5)) * first.width_hu
        yield f"{slabs}{window_title(window)}", apply_window(hu, window)


def _block_means(
    images: UInt8[np.ndarray, "slices height width"], factor: int
) -> UInt8[np.ndarray, "slices rows columns"]:
    """Means of ``factor`` × ``factor`` pixels; what is left over at the far edges is cut off."""
    slices, height, width = images.shape
    rows, columns = height // factor, width // factor
    kept = images[:, : rows * factor, : columns * factor]
    means = kept.reshape(slices, rows, factor, columns, factor).mean(axis=(2, 4))
    drawn: UInt8[np.ndarray, "slices rows columns"] = np.rint(means).astype(np.uint8)
    return drawn
