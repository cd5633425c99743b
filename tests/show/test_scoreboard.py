"""A page from an experiment whose cells are written by hand."""

from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json
from ctscribe.base.grid import grid
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, write_rows
from ctscribe.data.prepared import Prepared
from ctscribe.experiment import compare_cells
from ctscribe.learn.train.run_log import draw_loss_curve
from ctscribe.measure.scores import evaluate
from ctscribe.show.scoreboard import write_scoreboard
from tests.show.chests import chest
from tests.studies import write_prepared

RECIPE = Recipe.model_validate(
    {"experiment": {"betas": (0.0, 0.1)}, "evaluate": {"resamples": 100}}
)
TEST = [chest(f"valid_{number}", number < 2) for number in range(4)]
TRAIN = [chest(f"train_{number}", number < 2) for number in range(4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    frames = [np.full((2, 28, 28, 3), 40 * number, dtype=np.uint8) for number in (0, 1, 2, 3)]
    prepared = write_prepared(tmp_path / "prepared", [*TRAIN, *TEST], RECIPE, frames=frames * 2)
    for number, cell in enumerate(grid(RECIPE)):
        folder = tmp_path / "cells" / cell.name
        written = [
            PredictionRow(
                scan_id=row.scan_id,
                patient_id=row.patient_id,
                volume_name=row.volume_name,
                findings=f"Emphysema is seen by {cell.strategy}.",
                impression="",
                num_tokens=5,
                finished=True,
            )
            for row in TEST
        ]
        write_rows(folder / "predictions.jsonl", written)
        write_json(folder / "scores.json", evaluate(written, TEST, TRAIN, RECIPE.evaluate))
        write_json(folder / "gap.json", {"value": 0.1, "low": 0.0, "high": 0.2})
        write_json(folder / "train" / "result.json", {"best_validation_loss": 3.0 - number})
        draw_loss_curve([], folder / "train" / "loss_curve.png")
    folders = {cell: tmp_path / "cells" / cell.name for cell in grid(RECIPE)}
    found = compare_cells(prepared, RECIPE, folders)
    write_json(tmp_path / "comparison.json", found)
    return tmp_path


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_the_page_shows_the_run_that_validation_selects(out: Path) -> None:
    path = write_scoreboard(out, Prepared(out / "prepared"), RECIPE)
    page = path.read_text(encoding="utf-8")
    assert path == out / "scoreboard.html"
    assert "heter-beta0.1-seed0, the run with the lowest validation loss" in page
    assert "Emphysema is seen by heter." in page
    assert "Emphysema is seen by gauss." not in page
    assert page.index("Table 1.") < page.index("Table 2.") < page.index("Table 3.")
    assert page.index("Table 3.") < page.index("Look-alike reports")
    assert page.index("Look-alike reports") < page.index("The 4 worst studies")
    assert page.count('<figure class="plot">') == 1 + 1 + 1 + 3 + 3
    assert "Research use only" in page


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_an_unfinished_cell_is_told(out: Path) -> None:
    (out / "cells" / "gauss-beta0.1-seed0" / "scores.json").unlink()
    with pytest.raises(CtscribeError, match="E_MISSING"):
        write_scoreboard(out, Prepared(out / "prepared"), RECIPE)
