"""Scoring against tables from the command line: what is asked, said and shown."""

import csv
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import SplitsConfig
from ctscribe.cli.app import app
from ctscribe.cli.references import (
    ReferenceOptions,
    TrainingOptions,
    load_references,
    require_prepared,
)
from ctscribe.text.findings import FINDINGS

CSV = Path("r.csv")
NODULE = "There is a nodule of 7 mm in the right upper lobe."
CLEAR = "The lungs are clear."
REPORTS = {f"valid_{number}_a_1.nii.gz": NODULE if number < 3 else CLEAR for number in range(6)}


def run(*arguments: object) -> None:
    tokens = [str(argument) for argument in arguments]
    app(tokens, exit_on_error=False, result_action="return_value")


def saved(path: Path, reports: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("VolumeName", "report_text"))
        writer.writerows(reports.items())
    return path


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return saved(tmp_path / "references.csv", REPORTS)


def test_scores_and_page_need_no_volumes(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    run("label", references, "--out", labels)
    written = saved(tmp_path / "written.csv", REPORTS | {"valid_4_a_1.nii.gz": NODULE})
    few = ("--set", "evaluate.resamples=100")
    asked = ("--references", references, "--labels", labels)
    run("evaluate", written, *asked, "--out", tmp_path / "scores.json", *few)
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

    other = saved(tmp_path / "other.csv", dict.fromkeys(REPORTS, CLEAR))
    out = tmp_path / "comparison.json"
    run("compare", written, other, "--references", references, "--out", out, *few)
    assert read_json(out)["differences"]["other"]["coverage"]["difference"] == -1
    assert "The findings of 6 references were read from their text" in capsys.readouterr().out


def test_training_reports_serve_the_baselines(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = saved(tmp_path / "known.csv", {f"train_{n}_a_1.nii.gz": NODULE for n in range(1, 9)})
    run(
        *("evaluate", references, "--references", references, "--training", known),
        *("--out", tmp_path / "s.json", "--set", "evaluate.resamples=100"),
    )
    scores = read_json(tmp_path / "s.json")
    assert scores["baselines"]["constant_report"]["coverage"]["value"] == 1
    assert "serve as such" not in capsys.readouterr().out


def test_unknown_patients_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "r.csv", {"case-1": NODULE, "case-2": CLEAR})
    run(
        *("evaluate", path, "--references", path, "--out", tmp_path / "s.json"),
        *("--set", "evaluate.resamples=100"),
    )
    told = capsys.readouterr()
    assert "note: 2 scans name no patient" in told.out + told.err
    assert "2 scans name no patient, so each counts as a patient of its own" in told.out
    assert read_json(tmp_path / "s.json")["n"]["scans_without_patient"] == 2


def test_a_foreign_models_card_needs_no_volumes(references: Path, tmp_path: Path) -> None:
    views = tmp_path / "views"
    views.mkdir()
    saved(views / "real.csv", REPORTS)
    texts = list(REPORTS.values())
    others = dict(zip(REPORTS, texts[1:] + texts[:1], strict=True))
    saved(views / "other_patient.csv", others)
    run("card", views, "--references", references, "--set", "evaluate.resamples=100")
    assert read_json(views / "card" / "card.json")["dependence"]["value"] == 1
    assert "all references given: 6 scans" in (views / "card" / "card.md").read_text()


@pytest.mark.parametrize(
    ("against", "known", "told"),
    [
        (
            ReferenceOptions(),
            TrainingOptions(),
            "either --prepared or --references, but neither is given",
        ),
        (ReferenceOptions(prepared=CSV, references=CSV), TrainingOptions(), "both are given"),
        (
            ReferenceOptions(prepared=CSV, labels=CSV),
            TrainingOptions(),
            "--labels goes with --references",
        ),
        (ReferenceOptions(prepared=CSV, metadata=CSV), TrainingOptions(), "--metadata goes with"),
        (
            ReferenceOptions(prepared=CSV),
            TrainingOptions(training=CSV),
            "--training goes with --references",
        ),
        (
            ReferenceOptions(references=CSV, split="test"),
            TrainingOptions(),
            "--split chooses among prepared",
        ),
        (
            ReferenceOptions(references=CSV),
            TrainingOptions(training_labels=CSV),
            "goes with --training, but",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    against: ReferenceOptions, known: TrainingOptions, told: str
) -> None:
    with pytest.raises(CtscribeError) as caught:
        load_references(against, SplitsConfig(), known)
    assert caught.value.code == "E_OPTION"
    assert told in caught.value.sentence


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
