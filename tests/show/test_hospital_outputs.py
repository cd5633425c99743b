"""`ctscribe report` with documents for a hospital's systems."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import pydicom
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import read_recipe
from ctscribe.cli.app import app
from ctscribe.show.hospital_outputs import HospitalOutputs
from tests.dicom import write_series
from tests.drafts import IDENTITY, STUDY, draft_of, with_identity
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.scans import image_of

needs_highdicom = pytest.mark.skipif(
    find_spec("highdicom") is None,
    reason="highdicom, which writes SRs, is not installed",
)
TOLD = [value for value in IDENTITY.values() if len(value) > 2]


@pytest.fixture
def run(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    small = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "generate.max_new_tokens=4")
    recipe = read_recipe("tiny", (*small, "volume.spacing_mm=[6,6,8]"))
    return write_run(tmp_path / "run", recipe, tiny_model(tokenizer), tokenizer)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_series(tmp_path / "source", with_identity)


def report(source: Path, run: Path, *options: str) -> dict[str, bytes]:
    out = run.parent / "draft"
    words = ["report", str(source), "--run", str(run), "--out", str(out), *options]
    app(words, result_action="return_value")
    return {path.name: path.read_bytes() for path in out.iterdir()}


@needs_highdicom
def test_identity_is_in_these_documents_alone_and_only_if_asked_for(
    source: Path, run: Path
) -> None:
    made = report(source, run, "--dicom-sr", "--fhir", "--name", "case 7")
    names = {"report.json", "report.txt", "report.html", "report.dcm", "report.fhir.json"}
    assert names <= set(made)
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in source.iterdir()]
    secret = [each.encode() for each in (*TOLD, *uids, *["Müller", "Jörg", "Ayşe"])]
    for name, content in made.items():
        assert not [each for each in secret if each in content], name
    named = report(source, run, "--dicom-sr", "--fhir", "--with-identity", "--name", "case 7")
    for name, content in named.items():
        told = [each for each in secret if each in content]
        assert bool(told) == (name.endswith(".dcm") or "fhir" in name), name
    assert pydicom.dcmread(run.parent / "draft" / "report.dcm").StudyInstanceUID == STUDY


@needs_highdicom
def test_no_document_of_an_earlier_draft_stays(source: Path, run: Path) -> None:
    assert {"report.dcm", "report.fhir.json"} <= set(report(source, run, "--dicom-sr", "--fhir"))
    assert set(report(source, run)) == {"report.json", "report.txt", "report.html"}


@pytest.mark.parametrize("release", ["R5", "R4B"])
def test_the_release_is_as_asked(source: Path, run: Path, release: str) -> None:
    content = report(source, run, "--fhir", "--fhir-release", release)["report.fhir.json"]
    device = json.loads(content)["contained"][0]
    assert ("deviceName" in device) == (release == "R4B")


@needs_highdicom
@pytest.mark.parametrize("options", [["--dicom-sr"], ["--fhir", "--with-identity"]])
def test_a_nifti_file_has_no_images_to_refer_to(
    tmp_path: Path, run: Path, options: list[str]
) -> None:
    nib.save(image_of(), tmp_path / "scan.nii.gz")
    with refusal("E_NO_IMAGES", "must be a DICOM series"):
        report(tmp_path / "scan.nii.gz", run, *options)
    assert not (run.parent / "draft").exists(), "told before the model is asked"
    assert "report.fhir.json" in report(tmp_path / "scan.nii.gz", run, "--fhir")


def test_options_that_would_do_nothing_are_refused(source: Path, run: Path) -> None:
    with refusal("E_OPTION", "--with-identity must go with"):
        report(source, run, "--with-identity")
    with refusal("E_OPTION", "--fhir-release must go with"):
        report(source, run, "--fhir-release", "R4B")


def test_without_highdicom_one_sentence_says_how_to_get_it(
    source: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with refusal("E_DICOM_SR", r"pip install ctscribe\[dicom-sr\]"):
        report(source, run, "--dicom-sr")
    assert "report.fhir.json" in report(source, run, "--fhir")


@needs_highdicom
def test_the_series_that_is_drafted_is_the_one_referred_to(tmp_path: Path, source: Path) -> None:
    def second(image: pydicom.FileDataset, z: int) -> None:
        with_identity(image, z)
        image.SeriesNumber = 5

    write_series(source, second, series="1.2.9", slices=range(22))
    outputs = HospitalOutputs(dicom_sr=True, with_identity=True)
    images = outputs.read_source(source, "5")
    outputs.save(draft_of(source, series="5"), images, tmp_path / "out")
    document = pydicom.dcmread(tmp_path / "out" / "report.dcm")
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert (series.SeriesInstanceUID, len(series.ReferencedSOPSequence)) == ("1.2.9", 22)
