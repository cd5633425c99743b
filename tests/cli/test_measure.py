"""Scoring from the command line, as a user of any model does: what is asked, said and shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.locks import one_writer_of
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
from tests.holders import held
from tests.refusals import refusal
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


def test_cards_stand_side_by_side(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = list(REPORTS.values())
    others = dict(zip(REPORTS, texts[1:] + texts[:1], strict=True))
    for name in ("model.v1", "model.v2"):
        (tmp_path / name).mkdir()
        write_reports(tmp_path / name / "real.csv", REPORTS)
        write_reports(tmp_path / name / "other_patient.csv", others)
    asked = (tmp_path / "model.v1", tmp_path / "model.v2", "--references", references)
    run("card", *asked, "--out", tmp_path / "both", *FEW)
    assert [*read_json(tmp_path / "both" / "cards.json")["systems"]] == ["model.v1", "model.v2"]
    assert (tmp_path / "model.v2" / "card" / "card.md").is_file()
    assert "Verdicts" in capsys.readouterr().out
    with pytest.raises(CtscribeError, match=r"but was on 3.*E_DEPENDENCE"):
        run("card", *asked, "--out", tmp_path / "both", "--min-dependence", "0.1", *FEW)


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


@pytest.mark.parametrize("form", ["csv", "vlm3d", "vlm3d-nested", "ct-chat", "ct-chat-truth"])
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


def test_scores_and_page_are_written_by_one_process_at_a_time(
    references: Path, tmp_path: Path
) -> None:
    target = tmp_path / "scores.json"
    asked = ("evaluate", references, "--references", references, "--out", target, *FEW)
    with held(one_writer_of(target)), refusal("E_BUSY"):
        run(*asked)
    assert not target.with_suffix(".html").exists()
    run(*asked)
    assert target.with_suffix(".html").exists()


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


VLM3D = ("--set", "evaluate.profile=vlm3d", *FEW)
HEADED = {
    f"valid_{n}_a_1.mha": f"Findings: A nodule of {n} mm.\nIt is\nsolid . Impression: Nodule {n}."
    for n in range(2, 8)
}


def saved_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def scores_of(tmp_path: Path, written: Path, references: Path, *more: object) -> dict[str, Any]:
    out = tmp_path / "scores.json"
    run("evaluate", written, "--references", references, "--out", out, *VLM3D, *more)
    return dict(read_json(out))


def test_vlm3d_compares_reports_as_they_stand(tmp_path: Path) -> None:
    references = saved_json(tmp_path / "truth.json", {"generated_reports": HEADED})
    whole = saved_json(tmp_path / "whole.json", HEADED)
    assert scores_of(tmp_path, whole, references)["model"]["bleu_mean"]["value"] > 0.999999
    bare = {
        name: text.replace("Findings: ", "").replace("Impression: ", "")
        for name, text in HEADED.items()
    }
    without = scores_of(tmp_path, saved_json(tmp_path / "bare.json", bare), references)["model"]
    # 12 words, one of them glued to another where the newlines went, and 2 are missing.
    assert without["bleu_1"]["value"] < 0.9
    assert "mean over all 18 findings" in without["f1_macro"]["signature"]
    assert without["coverage"]["value"] == 1


def test_sections_are_headed_as_the_challenge_has_them(tmp_path: Path) -> None:
    rows = ["VolumeName,Findings_EN,Impressions_EN"]
    rows += [f"valid_{n}_a_1.nii.gz,A nodule of {n} mm is seen.,Nodule." for n in range(4)]
    (tmp_path / "two.csv").write_text("\n".join(rows), encoding="utf-8")
    one = {
        f"valid_{n}_a_1.mha": f"Findings: A nodule of {n} mm is seen. Impression: Nodule."
        for n in range(4)
    }
    whole = saved_json(tmp_path / "one.json", one)
    for written, truth in ((whole, tmp_path / "two.csv"), (tmp_path / "two.csv", whole)):
        found = scores_of(tmp_path, written, truth)
        assert found["model"]["rouge_l"]["value"] == 1
        # The baselines' reports have their headings too.
        assert found["baselines"]["other_patient"]["rouge_l"]["value"] > 0.8
    run("convert", tmp_path / "two.csv", "--to", "vlm3d", "--out", tmp_path / "again.json")
    written_again = read_json(tmp_path / "again.json")["generated_reports"]
    assert {each["input_image_name"]: each["report"] for each in written_again} == one


def test_what_the_challenge_leaves_out_is_told_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = saved_json(tmp_path / "truth.json", HEADED)
    few = saved_json(tmp_path / "few.json", dict([*HEADED.items()][:4]))
    found = scores_of(tmp_path, few, references)
    assert found["model"]["rouge_l"]["value"] == pytest.approx(4 / 6)
    assert found["language_of_written"]["scans"] == 4
    assert found["language_of_written"]["rouge_l"] == 1
    said = (
        "the challenge's scorer leaves out scans without a report, and of the 4 others has BLEU-1"
    )
    assert said in " ".join(capsys.readouterr().out.split())
    everything = scores_of(tmp_path, references, references)
    assert everything["language_of_written"] is None


def test_special_tokens_and_other_questions_are_told(
    tmp_path: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        {
            "image": name.replace(".nii.gz", ".npz"),
            "conversations_out": [
                {"question": "How old?<short_answer>", "answer": "50"},
                {"question": "Write.<report_generation>", "answer": f"<s> {text} </s>"},
            ],
        }
        for name, text in REPORTS.items()
    ]
    path = saved_json(tmp_path / "chat.json", entries)
    run("evaluate", path, "--references", references, "--out", tmp_path / "s.json", *FEW)
    scores = read_json(tmp_path / "s.json")
    assert scores["n"]["reports_with_special_tokens"] == 6
    assert scores["n"]["other_questions_passed_over"] == 6
    assert scores["model"]["rouge_l"]["value"] == 1
    told = capsys.readouterr()
    note = "6 reports held special tokens of a language model, which were taken away"
    assert f"note: {note}" in " ".join(told.err.split())
    assert note in " ".join(told.out.split())
    assert "6 answers to other questions" in told.err
    run("convert", path, "--to", "csv", "--out", tmp_path / "p.csv")
    assert "6 reports held special tokens" in capsys.readouterr().err
    assert "</s>" not in (tmp_path / "p.csv").read_text(encoding="utf-8")
    run("compare", path, references, "--references", references, "--out", tmp_path / "c", *FEW)
    assert read_json(tmp_path / "c")["n"]["reports_with_special_tokens"] == 6


def test_a_ground_truth_with_special_tokens_is_read_without(tmp_path: Path) -> None:
    marked = saved_json(tmp_path / "t.json", {name: f"{t}</s>" for name, t in HEADED.items()})
    plain = saved_json(tmp_path / "p.json", HEADED)
    found = scores_of(tmp_path, plain, marked)
    assert found["n"]["references_with_special_tokens"] == 6
    assert found["model"]["rouge_l"]["value"] == 1


def test_the_challenges_labels_are_written_and_read(tmp_path: Path, references: Path) -> None:
    labels = tmp_path / "labels.csv"
    run("label", references, "--out", labels, "--to", "vlm3d")
    first, *rows = labels.read_text(encoding="utf-8").splitlines()
    assert first == ",".join(("AccessionNo", *FINDINGS))
    assert [row.split(",")[0] for row in rows] == [f"valid_{n}_a_1" for n in range(6)]
    against = ReferenceOptions(references=references, labels=labels)
    found = load_references(against, SplitsConfig())
    assert [any(row.labels or ()) for row in found.studies] == [True] * 3 + [False] * 3
    # Or by the scan's own name.
    scans = [rows[0], *(row.replace("_a_1", "_a", 1) for row in rows[1:])]
    labels.write_text("\n".join((first, *scans)), encoding="utf-8")
    assert load_references(against, SplitsConfig()).studies == found.studies


def test_our_rows_are_written_by_the_references_names(tmp_path: Path) -> None:
    table = [("VolumeName", "scan", "patient", "report")]
    table += [(f"x/{n}.nii.gz", f"scan-{n}", f"person-{n}", NODULE) for n in range(3)]
    (tmp_path / "r.csv").write_text("\n".join(map(",".join, table)), encoding="utf-8")
    written = write_reports(tmp_path / "w.csv", {f"{n}.mha": NODULE for n in range(3)})
    asked = ("--references", tmp_path / "r.csv")
    run("convert", written, "--to", "jsonl", "--out", tmp_path / "p.jsonl", *asked)
    run("evaluate", tmp_path / "p.jsonl", *asked, "--out", tmp_path / "s.json", *FEW)
    assert read_json(tmp_path / "s.json")["model"]["f1"]["value"] == 1


def test_ct2reps_pair_is_written_and_scored(tmp_path: Path, references: Path) -> None:
    written = write_reports(tmp_path / "w.csv", REPORTS | {"valid_4_a_1.nii.gz": NODULE})
    out = tmp_path / "res.csv"
    run("convert", written, "--to", "ct2rep", "--out", out, "--references", references)
    asked = ("--references", references, "--set", "evaluate.profile=r2gen", *FEW)
    scores = {}
    for path in (written, out):
        run("evaluate", path, *asked, "--out", tmp_path / "s.json")
        scores[path] = read_json(tmp_path / "s.json")["model"]
    assert scores[written] == scores[out]
    with pytest.raises(CtscribeError, match=r"names none.*E_PREDICTION"):
        run("convert", out, "--to", "vlm3d", "--out", tmp_path / "p.json")
