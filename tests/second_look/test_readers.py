"""What comes after a second look: training, writing, evidence, calibration, one scan's report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.card.make import make_card
from ctscribe.confidence.stage import calibrate
from ctscribe.confidence.template import generate_template
from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.evidence.stage import check_faithfulness, find_evidence
from ctscribe.export import patient
from ctscribe.export.draft import Draft, write_draft
from ctscribe.export.patient import report_patient
from ctscribe.files import read_json, write_json
from ctscribe.generate import generate
from ctscribe.rows import StudyRow, read_rows
from ctscribe.run import weights_sha256
from ctscribe.second_look.cut import ShownFrames
from ctscribe.slices.cache import read_frames
from ctscribe.train.stage import train
from tests.second_look.recipe import RECIPE

Read = Callable[[Path], object]


def predictions(run: Path) -> Path:
    return run / "predictions_validation.jsonl"


def test_evidence_of_a_crop_names_the_slices_it_was_cut_from(run: Path, looked: Path) -> None:
    found = find_evidence(run, looked, predictions(run), RECIPE, run / "evidence.jsonl")
    assert found
    studies = {row.volume_name: row for row in read_rows(looked / "studies.jsonl", StudyRow)}
    for row in found:
        depths = studies[row.volume_name].slice_indices
        for sentence in row.sentences:
            assert sorted(each.pair for each in sentence.pairs) == list(range(5))
            for each in sentence.pairs:
                assert each.slice_indices == depths[2 * each.pair : 2 * each.pair + 2]


def test_a_run_is_another_run_on_crops_that_other_weights_chose(
    data: Path, start: Path, run: Path, led_otherwise: Path
) -> None:
    assert read_json(run / "run.json")["asked"]["lead_sha256"] == weights_sha256(start)
    pairs = data / "pairs.jsonl"
    with pytest.raises(CtscribeError, match=r"differs in lead_sha256.*E_RUN_EXISTS"):
        train(run, led_otherwise, pairs, RECIPE, start)
    with pytest.raises(CtscribeError, match=r"run second-look first.*E_PAIRS"):
        train(data / "other", data / "prepared", pairs, RECIPE, start)
    assert not (data / "other").exists()


def readers(data: Path, run: Path, out: Path) -> dict[str, Read]:
    """Every stage that shows a run's model prepared studies, by name."""
    calibrate(run, data / "looked", RECIPE, "validation")  # else the template has nothing to say
    return {
        "generate": lambda folder: generate(run, folder, RECIPE, "validation", out / "w.jsonl"),
        "template": lambda folder: generate_template(
            run, folder, RECIPE, "validation", out / "t.jsonl"
        ),
        "evidence": lambda folder: find_evidence(
            run, folder, predictions(run), RECIPE, out / "e.jsonl"
        ),
        "faithfulness": lambda folder: check_faithfulness(
            run, folder, predictions(run), data / "truth.jsonl", RECIPE
        ),
        "calibrate": lambda folder: calibrate(run, folder, RECIPE, "validation"),
        "card": lambda folder: make_card(run, folder, RECIPE, "validation", out / "card"),
    }


def test_what_a_run_was_not_trained_with_is_shown_by_no_stage(
    data: Path, run: Path, looked: Path, led_otherwise: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    stages = readers(data, tmp_path / "run", tmp_path)
    assert stages["faithfulness"](looked)
    for name, read in stages.items():
        with pytest.raises(CtscribeError, match="E_PAIRS"):
            read(data / "prepared")
            pytest.fail(name)
        with pytest.raises(CtscribeError, match=r"others chose them.*E_WEIGHTS"):
            read(led_otherwise)
            pytest.fail(name)
    assert not [*tmp_path.glob("*.jsonl"), *tmp_path.glob("card")]


def scan_of(data: Path, study: StudyRow) -> Path:
    (path,) = data.glob(f"dataset/**/{study.volume_name}")
    return path


@pytest.fixture
def study(looked: Path) -> StudyRow:
    return read_rows(looked / "studies.jsonl", StudyRow)[2]


def test_a_report_shows_its_model_what_the_stages_would(
    data: Path,
    start: Path,
    run: Path,
    looked: Path,
    study: StudyRow,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[ShownFrames] = []

    def spy(run_dir: Path, recipe: Recipe, shown: ShownFrames) -> Draft:
        seen.append(shown)
        return write_draft(run_dir, recipe, shown)

    monkeypatch.setattr(patient, "write_draft", spy)
    paths = report_patient(scan_of(data, study), run, tmp_path, lead=start)
    np.testing.assert_array_equal(seen[0].frames, read_frames(looked, study.volume_name))
    found = read_json(paths["json"])
    assert found["provenance"]["lead_sha256"] == weights_sha256(start)
    assert [each["slice_index"] for each in found["slices"]] == list(study.slice_indices)
    assert [each["position_mm"] for each in found["slices"]] == list(study.position_mm)
    assert ["second_look" in each for each in found["slices"]] == [False] * 6 + [True] * 4
    for row in found["sentences"]:
        for each in row["slices"]:
            place = found["slices"][each["number"] - 1]
            assert (each["slice_index"], each["position_mm"]) == (
                place["slice_index"],
                place["position_mm"],
            )
    page, text = (paths[kind].read_text() for kind in ("html", "text"))
    assert page.count('<figure id="slices-') == 10
    assert "<span>6 axial slices</span><span>4 crops</span>" in page
    assert weights_sha256(start) in page
    assert "6 axial slices between" in text
    assert "4 crops of them" in " ".join(text.split())


def test_what_cannot_be_assessed_is_not_looked_at_again(
    data: Path, start: Path, run: Path, study: StudyRow, tmp_path: Path
) -> None:
    image = nib.load(scan_of(data, study))
    air = nib.Nifti1Image(np.full(image.shape, -1000, np.int16), image.affine)
    air.header.set_xyzt_units("mm")
    air.dataobj[0, 0, 0] = 100
    nib.save(air, tmp_path / "air.nii.gz")
    paths = report_patient(tmp_path / "air.nii.gz", run, tmp_path, lead=start)
    found = read_json(paths["json"])
    assert found["provenance"]["lead_sha256"] is None
    assert found["status"] == "not assessable"
    assert not any("second_look" in each for each in found["slices"])


def test_a_report_is_led_by_no_other_weights(
    data: Path, start: Path, run: Path, study: StudyRow, tmp_path: Path
) -> None:
    scan, out = scan_of(data, study), tmp_path / "report"
    with pytest.raises(CtscribeError, match=r"--lead is missing.*E_WEIGHTS"):
        report_patient(scan, run, out)
    for other in (run / "best", tmp_path / "nowhere"):
        with pytest.raises(CtscribeError, match=r"holds others or none.*E_WEIGHTS"):
            report_patient(scan, run, out, lead=other)
    for name, change in {"old": {}, "once": {"second_look": 0}}.items():
        manifest = read_json(run / "run.json")
        del manifest["asked"]["lead_sha256"]
        manifest["asked"]["recipe"]["slices"] |= change
        write_json(tmp_path / name / "run.json", manifest)
    with pytest.raises(CtscribeError, match=r"before runs kept that; train it again.*E_RUN"):
        report_patient(scan, tmp_path / "old", out, lead=start)
    with pytest.raises(CtscribeError, match=r"leave it out.*E_OPTION"):
        report_patient(scan, tmp_path / "once", out, lead=start)
    assert not out.exists()
