"""One run scored and shown from the command line, as a user of any model would."""

from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.files import read_json
from ctscribe.cli.app import app
from tests.show.chests import NODULE, chest
from tests.studies import write_prepared


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    studies = [chest(f"valid_{number}", number < 2) for number in range(4)]
    studies += [chest(f"train_{number}", number % 2 == 0) for number in range(20)]
    frames = [np.full((2, 28, 28, 3), 10 * number, dtype=np.uint8) for number in range(24)]
    return write_prepared(tmp_path / "prepared", studies, frames=frames).folder


def run(*arguments: str | Path) -> None:
    tokens = [str(argument) for argument in arguments]
    app([*tokens], exit_on_error=False, result_action="return_value")


def test_any_models_reports_are_scored_shown_compared_and_tabulated(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, empty = tmp_path / "right.csv", tmp_path / "empty.csv"
    right.write_text(f'VolumeName,report\nvalid_0_a_1,"{NODULE}"\nvalid_1_a_1,"{NODULE}"\n')
    empty.write_text("VolumeName,report\nvalid_0_a_1,The lungs are clear.\n")
    few = ("--set", "evaluate.resamples=100")
    run("evaluate", right, "--prepared", prepared, "--out", tmp_path / "scores.json", *few)
    printed = capsys.readouterr().out
    assert "| Constant report" in printed
    assert "| Exact match " in printed
    scores = read_json(tmp_path / "scores.json")
    assert scores["missing"] == ["valid_2_a", "valid_3_a"]
    assert scores["model"]["coverage"]["value"] == 1
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert "2 of 4 scans without a report" in page
    assert "How much of the reports is one report." in page
    assert "Coverage of lung nodules by their size" in page
    assert "Look-alike reports" in page
    assert "The 4 worst studies" in page

    out = tmp_path / "comparison.json"
    run("compare", right, empty, "--prepared", prepared, "--out", out, *few)
    assert "Differences from right" in capsys.readouterr().out
    assert read_json(out)["differences"]["empty"]["coverage"]["difference"] == -1

    run("table", tmp_path / "scores.json", "--form", "latex", "--out", tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir())[:2] == [
        "each_finding.tex",
        "findings.tex",
    ]
