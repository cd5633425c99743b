"""Drafts of many scans: one model, what is there is kept, a bad scan stops nothing."""

import json
from pathlib import Path

import nibabel as nib
import pydicom
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import DraftRow, SkippedRow, read_rows
from ctscribe.data.manifest import each_source
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.data.worklist import read_skipped, write_worklist
from ctscribe.show.drafts import ScanToDraft, draft_many, listed_scans, prepared_scans
from ctscribe.show.hospital_outputs import HospitalOutputs
from ctscribe.write.writer import ReportWriter
from tests.exports import PLANTED, write_export
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.scans import coarse_chest, image_of


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    knobs = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "volume.spacing_mm=[6,6,8]")
    return read_recipe("tiny", (*knobs, "generate.max_new_tokens=8"))


@pytest.fixture(scope="module")
def writer(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> ReportWriter:
    run = tmp_path_factory.mktemp("run")
    return ReportWriter(write_run(run / "run", recipe, tiny_model(tokenizer), tokenizer))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_worklist([write_export(folder / "export")], folder / "scans.csv")
    return folder


@pytest.fixture
def scans(archive: Path, writer: ReportWriter) -> list[ScanToDraft | SkippedRow]:
    found = write_worklist([archive / "export"], archive / "scans.csv")
    entries = [*each_source(archive / "scans.csv", 8.0), *read_skipped(found)]
    return [*listed_scans(writer, entries)]


def times(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("report.html")}


def test_each_scan_has_a_draft_and_the_bad_one_a_reason(
    writer: ReportWriter, scans: list[ScanToDraft | SkippedRow], tmp_path: Path
) -> None:
    codes: list[str] = []
    rows = draft_many(writer, scans, tmp_path, failed=codes.append)
    assert [row.status for row in rows] == ["written"] * 3 + ["failed"]
    assert codes == ["E_TRUNCATED"]
    assert read_rows(tmp_path / "drafts.jsonl", DraftRow) == rows
    page = (tmp_path / "index.html").read_text()
    for row in rows[:3]:
        assert f'href="{row.volume_name}/report.html"' in page
        assert (tmp_path / row.volume_name / "report.html").is_file()
    assert "E_TRUNCATED" in page
    assert "Research use only" in page
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [word for word in PLANTED if word.encode() in written] == []


def test_an_interrupted_run_goes_on_and_writes_nothing_twice(
    writer: ReportWriter, scans: list[ScanToDraft | SkippedRow], tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draft_many(writer, scans, tmp_path, progress=stop)
    with (tmp_path / "drafts.jsonl").open("a") as file:
        file.write('{"volume_name": "cut')
    before, told = times(tmp_path), []
    rows = draft_many(writer, scans, tmp_path, progress=lambda done, total: told.append(done))
    assert told == [2, 3, 4]
    assert before.items() < times(tmp_path).items()
    assert len(rows) == 4
    again = times(tmp_path)
    assert draft_many(writer, scans, tmp_path) == rows
    assert times(tmp_path) == again


def test_what_is_no_longer_there_or_of_another_source_is_drafted_again(
    writer: ReportWriter,
    scans: list[ScanToDraft | SkippedRow],
    archive: Path,
    tmp_path: Path,
) -> None:
    first, *_ = draft_many(writer, scans, tmp_path)
    (tmp_path / first.volume_name / "report.html").unlink()
    told: list[int] = []
    draft_many(writer, scans, tmp_path, progress=lambda done, total: told.append(done))
    assert told == [2, 3, 4]
    for path in (archive / "export").rglob("0*"):
        if path.is_file():
            path.touch()
    told.clear()
    draft_many(writer, scans, tmp_path, progress=lambda done, total: told.append(done))
    assert told == [0, 1, 2, 3, 4]


def test_a_scan_that_fails_is_tried_again_and_another_run_is_refused(
    writer: ReportWriter,
    scans: list[ScanToDraft | SkippedRow],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "drafts"

    def fail(*_: object, **__: object) -> None:
        raise CtscribeError("E_GAP", "x must be whole, but is not")

    with monkeypatch.context() as patched:
        patched.setattr("ctscribe.show.drafts.save_report", fail)
        assert {row.code for row in draft_many(writer, scans, out)} == {"E_GAP", "E_TRUNCATED"}
    rows = draft_many(writer, scans, out)
    assert [row.status for row in rows] == ["written"] * 3 + ["failed"]
    other = writer.with_overrides(("generate.max_new_tokens=4",))
    with refusal("E_RUN_EXISTS", "generate"):
        draft_many(other, scans, out)


def test_documents_are_written_of_scans_that_have_images(
    writer: ReportWriter, scans: list[ScanToDraft | SkippedRow], tmp_path: Path
) -> None:
    nib.save(image_of(coarse_chest()), tmp_path / "scan.nii.gz")
    (tmp_path / "scans.csv").write_text("volume,patient,scan\nscan.nii.gz,p1,s1\n")
    nifti = listed_scans(writer, each_source(tmp_path / "scans.csv", 8.0))
    outputs = HospitalOutputs(dicom_sr=True, fhir="R5", with_identity=True)
    out = tmp_path / "drafts"
    *rows, last = draft_many(writer, [*scans[:3], *nifti], out, outputs)
    assert last.documents == ("report.fhir.json",)
    (control_signs,) = [row.reason for row in rows if row.status == "failed"]
    assert "usable PatientName" in str(control_signs)
    for row in rows:
        if row.status == "written":
            assert row.documents[:2] == ("report.fhir.json", "report.dcm")
            named = pydicom.dcmread(out / row.volume_name / "report.dcm")
            assert "PLANTED" in str(named.PatientName)
            assert f"{row.volume_name}/report.dcm" in (out / "index.html").read_text()
    others = [path for path in out.rglob("*") if path.suffix in (".html", ".txt", ".jsonl")]
    assert [word for word in PLANTED for path in others if word in path.read_text()] == []
    with refusal("E_RUN_EXISTS", "documents"):
        draft_many(writer, scans, out)


def test_a_prepared_folder_is_drafted_from_its_stored_frames(
    writer: ReportWriter,
    recipe: Recipe,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(archive / "scans.csv", tmp_path / "prepared", recipe.volume, recipe.slices)
    prepared = Prepared(tmp_path / "prepared")
    with monkeypatch.context() as patched:
        patched.delattr("ctscribe.scan.frames.make_frames")  # none are made anew
        rows = draft_many(writer, [*prepared_scans(writer, prepared)], tmp_path / "drafts")
    assert [row.status for row in rows] == ["written"] * 3
    direct = [*listed_scans(writer, each_source(archive / "scans.csv", 8.0))]
    for row, read in zip(rows, draft_many(writer, direct, tmp_path / "direct"), strict=True):
        assert (row.scan_id, row.findings) == (read.scan_id, read.findings)
        mine, theirs = (
            json.loads((tmp_path / folder / row.volume_name / "report.json").read_text())
            for folder in ("drafts", "direct")
        )
        for same in ("scan_sha256", "source_kind", "geometry"):
            assert mine[same] == theirs[same]
        assert mine["source_kind"] == "DICOM"
        assert mine["geometry"]["Source"]["orientation"] == "LPS"


def test_a_prepared_folder_without_volumes_is_refused_before_the_first(
    writer: ReportWriter, recipe: Recipe, archive: Path, tmp_path: Path
) -> None:
    prepare(archive / "scans.csv", tmp_path, recipe.volume, recipe.slices, keep="slices")
    with refusal("E_MISSING", "--keep all"):
        [*prepared_scans(writer, Prepared(tmp_path))]
