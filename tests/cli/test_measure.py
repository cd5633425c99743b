"""Scoring from the command line, as a user of any model does: what is asked, said and shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe, SplitsConfig
from ctscribe.base.rows import write_rows
from ctscribe.base.runs import open_run
from ctscribe.cli.app import app
from ctscribe.cli.references import (
    ReferenceOptions,
    TrainingOptions,
    load_references,
    require_prepared,
)
from ctscribe.text.findings import FINDINGS
from tests.studies import prediction, reported_studies, study_row, write_prepared, write_reports

FEW = ("--set", "evaluate.resamples=100")
CSV = Path("r.csv")
NODULE = "There is a nodule of 7 mm in the right upper lobe."
CLEAR = "The lungs are clear."
REPORTS = {f"valid_{number}_a_1.nii.gz": NODULE if number < 3 else CLEAR for number in range(6)}


def run(*arguments: object) -> None:
    tokens = [str(argument) for argument in arguments]
    app(tokens, exit_on_error=False, result_action="return_value")


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return write_reports(tmp_path / "references.csv", REPORTS)


def test_scores_and_page_need_no_volumes(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    run("label", references, "--out", labels)
    written = write_reports(tmp_path / "written.csv", REPORTS | {"valid_4_a_1.nii.gz": NODULE})
    asked = ("--references", references, "--labels", labels)
    run("evaluate", written, *asked, "--out", tmp_path / "scores.json", *FEW)
    scores = read_json(tmp_path / "scores.json")
    assert scores["model"]["coverage"]["value"] == 1
    assert scores["model"]["precision"]["value"] == 3 / 4
    assert scores["n"]["labels_read_from_text"] == 0
    assert scores["n"]["patients"] == 6
    said = "no training reports were given, so the references themselves serve as such"
    assert said in capsys.readouterr().out
    page = (tmp_path / "scores.html").read_text(encoding="utf-8")
    assert said in page
    assert "no slices are shown" in page
    assert "The 6 worst studies" in page
    assert "Look-alike" not in page
    assert "<image" not in page

    other = write_reports(tmp_path / "other.csv", dict.fromkeys(REPORTS, CLEAR))
    out = tmp_path / "comparison.json"
    run("compare", written, other, "--references", references, "--out", out, *FEW)
    assert read_json(out)["differences"]["other"]["coverage"]["difference"] == -1
    assert "The findings of 6 references were read from their text" in capsys.readouterr().out


def test_training_reports_serve_the_baselines(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = {f"train_{n}_a_1.nii.gz": NODULE for n in range(1, 9)}
    known = write_reports(tmp_path / "known.csv", reports)
    against = ("--references", references, "--training", known)
    run("evaluate", references, *against, "--out", tmp_path / "s.json", *FEW)
    scores = read_json(tmp_path / "s.json")
    assert scores["baselines"]["constant_report"]["coverage"]["value"] == 1
    assert "serve as such" not in capsys.readouterr().out


def test_unknown_patients_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_reports(tmp_path / "r.csv", {"case-1": NODULE, "case-2": CLEAR})
    run("evaluate", path, "--references", path, "--out", tmp_path / "s.json", *FEW)
    told = capsys.readouterr()
    assert "note: 2 scans name no patient" in told.out + told.err
    assert "2 scans name no patient, so each counts as a patient of its own" in told.out
    assert read_json(tmp_path / "s.json")["n"]["scans_without_patient"] == 2


def test_a_foreign_models_card_needs_no_volumes(references: Path, tmp_path: Path) -> None:
    views = tmp_path / "views"
    views.mkdir()
    write_reports(views / "real.csv", REPORTS)
    texts = list(REPORTS.values())
    others = dict(zip(REPORTS, texts[1:] + texts[:1], strict=True))
    write_reports(views / "other_patient.csv", others)
    run("card", views, "--references", references, *FEW)
    assert read_json(views / "card" / "card.json")["dependence"]["value"] == 1
    assert "all references given: 6 scans" in (views / "card" / "card.md").read_text()


@pytest.mark.parametrize(
    ("against", "known", "told"),
    [
        ({}, {}, "either --prepared or --references, but neither is given"),
        ({"prepared": CSV, "references": CSV}, {}, "both are given"),
        ({"prepared": CSV, "labels": CSV}, {}, "--labels goes with --references"),
        ({"prepared": CSV, "metadata": CSV}, {}, "--metadata goes with"),
        ({"prepared": CSV}, {"training": CSV}, "--training goes with --references"),
        ({"references": CSV, "split": "test"}, {}, "--split chooses among prepared"),
        ({"references": CSV}, {"training_labels": CSV}, "goes with --training, but"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    against: dict[str, Any], known: dict[str, Path], told: str
) -> None:
    with pytest.raises(CtscribeError, match=f"{told}.*E_OPTION"):
        load_references(ReferenceOptions(**against), SplitsConfig(), TrainingOptions(**known))


def test_the_card_of_a_run_needs_volumes() -> None:
    with pytest.raises(CtscribeError, match="needs volumes"):
        require_prepared(ReferenceOptions(references=CSV))
    assert require_prepared(ReferenceOptions(prepared=CSV)).folder == CSV


def test_findings_beside_the_reports_count(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    head = ",".join(("AccessionNo", "report_text", *FINDINGS))
    path.write_text(f"{head}\na,{CLEAR}{',1' * 18}\nb,{CLEAR}{',0' * 18}\n", encoding="utf-8")
    found = load_references(ReferenceOptions(references=path), SplitsConfig())
    assert [row.labels for row in found.studies] == [(1,) * 18, (0,) * 18]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Studies of words alone, and no page, which would show their frames."""
    monkeypatch.setattr("ctscribe.show.scoreboard.write_run_board", lambda *_: None)
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
        run("evaluate", path, "--prepared", prepared, "--out", target, *FEW)
        scores[path] = read_json(target)["model"]
    assert scores[other] == scores[predictions]
    assert scores[other]["f1"]["value"] == 1.0


def test_a_classifier_labels_and_says_what_it_cut(
    tmp_path: Path, classifier_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = write_reports(tmp_path / "r.csv", {"a": "lung " * 600, "b": "heart"})
    run("label", reports, "--out", tmp_path / "l.csv", "--classifier", classifier_dir)
    told = capsys.readouterr()
    assert "1 of 2 texts were cut at 512 tokens" in told.out + told.err
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 3
    evidence = ("--classifier", classifier_dir, "--evidence", tmp_path / "e.jsonl")
    with pytest.raises(CtscribeError, match="E_OPTION"):
        run("label", reports, "--out", tmp_path / "l.csv", *evidence)


def test_a_classifier_reads_for_the_scores_too(
    prepared: Path, predictions: Path, classifier_dir: Path
) -> None:
    out = prepared / "by_model.json"
    against = ("--prepared", prepared, "--classifier", classifier_dir)
    run("evaluate", predictions, *against, "--out", out, *FEW)
    scores = read_json(out)
    assert "|labels:classifier:" in scores["model"]["f1"]["signature"]
    assert "|labels:classifier:" in scores["baselines"]["constant_report"]["f1"]["signature"]


def test_any_models_reports_are_scored_shown_compared_and_tabulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = [f"valid_{number}" for number in range(2)] + [f"train_{2 * n}" for n in range(10)]
    healthy = [f"valid_{number}" for number in (2, 3)] + [f"train_{2 * n + 1}" for n in range(10)]
    studies = [
        study_row(f"{name}_a_1.nii.gz", slice_indices=(35, 25), findings=text, impression="")
        for names, text in ((ill, NODULE), (healthy, CLEAR))
        for name in names
    ]
    frames = [np.full((2, 28, 28, 3), 10 * number, dtype=np.uint8) for number in range(24)]
    prepared = write_prepared(tmp_path / "prepared", studies, frames=frames).folder
    right = write_reports(
        tmp_path / "right.csv", dict.fromkeys(("valid_0_a_1", "valid_1_a_1"), NODULE)
    )
    empty = write_reports(tmp_path / "empty.csv", {"valid_0_a_1": CLEAR})
    run("evaluate", right, "--prepared", prepared, "--out", tmp_path / "scores.json", *FEW)
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
    run("compare", right, empty, "--prepared", prepared, "--out", out, *FEW)
    assert "Differences from right" in capsys.readouterr().out
    assert read_json(out)["differences"]["empty"]["coverage"]["difference"] == -1

    run("table", tmp_path / "scores.json", "--form", "latex", "--out", tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir())[:2] == [
        "each_finding.tex",
        "findings.tex",
    ]
    run("table", tmp_path / "scores.json", "--published")
    printed = capsys.readouterr().out
    assert printed.index("How alike reports are") < printed.index("Published on CT-RATE")
    run("table", tmp_path / "scores.json")
    assert "Published on CT-RATE" not in capsys.readouterr().out


def test_what_was_cut_short_is_said_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"valid_{number}_a_1.nii.gz" for number in range(1, 7)]
    references = write_reports(tmp_path / "references.csv", dict.fromkeys(names, NODULE))
    rows = [
        prediction(study_row(name)).model_copy(update={"finished": name != names[0]})
        for name in names
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    run("evaluate", tmp_path / "p.jsonl", "--references", references, *FEW)
    said = "1 of 6 reports (16.7 %) cut short by the length limit"
    told = capsys.readouterr()
    assert said in told.out
    assert f"note: {said}" in told.err
    assert said in (tmp_path / "scores.html").read_text(encoding="utf-8")


def test_scoring_takes_the_recipe_of_the_run_that_wrote_and_says_where_there_is_none(
    prepared: Path, predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = prepared / "scores.json"
    run("evaluate", predictions, "--prepared", prepared, "--out", out, *FEW)
    assert "scored by the profile ctrate-raw, with seed 0" in capsys.readouterr().err
    knobs = {"evaluate": {"profile": "r2gen", "resamples": 100}}
    recipe = Recipe.model_validate(knobs)
    folder = open_run(prepared / "run", "train", {"recipe": recipe.model_dump(mode="json")})
    mine = folder / "predictions_test.jsonl"
    mine.write_bytes(predictions.read_bytes())
    run("evaluate", mine, "--prepared", prepared)
    assert "profile:r2gen" in read_json(folder / "scores.json")["model"]["bleu_4"]["signature"]
    assert "scored by" not in capsys.readouterr().err


def test_scoring_refuses_studies_that_were_prepared_for_another_recipe(
    prepared: Path, predictions: Path
) -> None:
    asked = ("--prepared", prepared, "--recipe", "tiny")
    for command in (("evaluate", predictions), ("compare", predictions, predictions)):
        with pytest.raises(CtscribeError, match=r"slices\.frame_size_px.*E_PREPARED"):
            run(*command, *asked)
