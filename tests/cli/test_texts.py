"""Labelling, converting and scoring others' predictions, as a user does them."""

import json
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import write_rows
from ctscribe.cli.app import app
from tests.studies import prediction, reported_studies, write_prepared


def run(*arguments: object) -> None:
    app(
        [str(argument) for argument in arguments], exit_on_error=False, result_action="return_value"
    )


@pytest.fixture(autouse=True)
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows frames, which these studies of words alone do not have."""
    monkeypatch.setattr("ctscribe.show.scoreboard.write_run_board", lambda *_: None)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    studies = [*reported_studies(12, "train"), *reported_studies(6)]
    return write_prepared(tmp_path, studies).folder


@pytest.fixture
def predictions(prepared: Path) -> Path:
    write_rows(prepared / "p.jsonl", [prediction(study) for study in reported_studies(6)])
    return prepared / "p.jsonl"


@pytest.mark.parametrize("form", ["csv", "vlm3d", "ct-chat"])
def test_converted_predictions_score_as_ours_do(
    prepared: Path, predictions: Path, form: str
) -> None:
    other = prepared / ("p.csv" if form == "csv" else f"{form}.json")
    run("convert", predictions, "--to", form, "--out", other)
    scores = {}
    for path in (predictions, other):
        target = prepared / f"{path.name}.scores"
        run(
            "evaluate",
            path,
            "--prepared",
            prepared,
            "--out",
            target,
            "--set",
            "evaluate.resamples=100",
        )
        scores[path] = json.loads(target.read_text())["model"]
    assert scores[other] == scores[predictions]
    assert scores[other]["f1"]["value"] == 1.0


def test_a_classifier_labels_and_says_what_it_cut(
    tmp_path: Path, classifier_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "r.csv"
    reports.write_text(f"VolumeName,report_text\na,{'lung ' * 600}\nb,heart\n")
    run("label", reports, "--out", tmp_path / "l.csv", "--classifier", classifier_dir)
    told = capsys.readouterr()
    assert "1 of 2 texts were cut at 512 tokens" in told.out + told.err
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 3
    with pytest.raises(CtscribeError) as caught:
        run(
            *("label", reports, "--out", tmp_path / "l.csv"),
            *("--classifier", classifier_dir, "--evidence", tmp_path / "e.jsonl"),
        )
    assert caught.value.code == "E_OPTION"


def test_a_classifier_reads_for_the_scores_too(
    prepared: Path, predictions: Path, classifier_dir: Path
) -> None:
    out = prepared / "by_model.json"
    run(
        *("evaluate", predictions, "--prepared", prepared, "--out", out),
        *("--classifier", classifier_dir, "--set", "evaluate.resamples=100"),
    )
    scores = json.loads(out.read_text())
    assert "|labels:classifier:" in scores["model"]["f1"]["signature"]
    assert "|labels:classifier:" in scores["baselines"]["constant_report"]["f1"]["signature"]
