"""A run asked about a folder that holds other slices, or slices of another grid, than it reads."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import write_rows
from ctscribe.base.runs import open_run
from ctscribe.data.prepared import Prepared
from ctscribe.measure.calibrate import calibrate
from ctscribe.measure.card import make_card, measure_gap
from ctscribe.measure.faithfulness import check_faithfulness
from ctscribe.write.find_evidence import find_evidence
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter
from tests.studies import prediction, study_row, write_prepared

STUDIES = [
    study_row("train_1_a_1.nii.gz", split="validation"),
    study_row("valid_1_a_1.nii.gz"),
    study_row("valid_2_a_1.nii.gz"),
]
Stage = Callable[[ReportWriter, Prepared, Path], object]
STAGES: dict[str, Stage] = {
    "generate": lambda run, prepared, out: generate(run, prepared, "test", out / "p.jsonl"),
    "calibrate": lambda run, prepared, _: calibrate(run, prepared, "test"),
    "card": lambda run, prepared, out: make_card(run, prepared, "test", out / "card"),
    "gap": lambda run, prepared, _: measure_gap(run, prepared, "test"),
    "evidence": lambda run, prepared, out: find_evidence(
        run, prepared, out / "written.jsonl", out / "evidence.jsonl"
    ),
    "faithfulness": lambda run, prepared, out: check_faithfulness(
        run, prepared, out / "written.jsonl", out / "truth.jsonl"
    ),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("section", "knob", "value"), [("slices", "num_slices", 8), ("volume", "spacing_mm", (3, 3, 3))]
)
def test_it_is_refused_by_the_knob_before_any_weights_are_read(
    stage: str, section: str, knob: str, value: object, tmp_path: Path
) -> None:
    prepared = write_prepared(tmp_path / "prepared", STUDIES)
    recipe = Recipe.model_validate({section: {knob: value}})
    open_run(tmp_path / "run", "train", {"recipe": recipe.model_dump(mode="json")})
    write_rows(tmp_path / "written.jsonl", [prediction(study) for study in STUDIES[1:]])
    write_rows(tmp_path / "truth.jsonl", [])
    with pytest.raises(CtscribeError, match=rf"differ in {section}\.{knob}.*E_PREPARED"):
        STAGES[stage](ReportWriter(tmp_path / "run"), prepared, tmp_path)
