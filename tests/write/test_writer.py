"""A run at work on one scan: when it reads its weights, what it says of itself, what it saves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import open_run
from ctscribe.front import load_writer
from ctscribe.learn.model.decoding import Answer
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.scan.volume import CTVolume
from ctscribe.write.calibration import FILE
from ctscribe.write.draft import Draft
from ctscribe.write.writer import ReportWriter
from tests.models import plain_calibration, tiny_model, write_run
from tests.scans import image_of

RECIPE = Recipe.model_validate(
    {
        "volume": {"spacing_mm": (6.0, 6.0, 8.0)},
        "slices": {"num_slices": 4, "frame_size_px": (56, 84)},
        "model": {"dtype": "float32"},
        "generate": {"max_new_tokens": 8},
    }
)
TEXT = "Findings: A nodule is seen. No effusion.\nImpression: Lung nodule."


@pytest.fixture(scope="module")
def run_dir(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    qwen = tiny_model(tokenizer)
    attach_finding_queries(qwen)
    return write_run(tmp_path_factory.mktemp("run"), RECIPE, qwen, tokenizer)


@pytest.fixture
def run(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> ReportWriter:
    """Of fixed words, as random weights have none."""
    answer = Answer(TEXT, (), (), finished=True)
    monkeypatch.setattr(ReportWriter, "answers", lambda *_: [answer])
    return load_writer(run_dir)


def saved(path: Path, scan: CTVolume) -> Path:
    nib.save(image_of(scan), path)
    return path


def same_but_for_name_and_time(draft: Draft, other: Draft) -> None:
    """Compares everything but the study's name, where it came from, and when it was written."""
    assert draft.prepared is not None
    assert other.prepared is not None
    np.testing.assert_array_equal(draft.prepared.frames, other.prepared.frames)
    assert draft.prepared.slice_indices == other.prepared.slice_indices
    assert draft.prepared.position_mm == other.prepared.position_mm
    assert draft.prepared.warnings == other.prepared.warnings
    created = draft.provenance.created
    plain = [
        replace(
            each,
            study="",
            source_kind="memory",
            prepared=None,
            provenance=replace(each.provenance, created=created),
        )
        for each in (draft, other)
    ]
    assert plain[0] == plain[1]


def test_it_says_what_model_it_is_and_whether_it_is_calibrated(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    run = ReportWriter(write_run(tmp_path, RECIPE, tiny_model(tokenizer), tokenizer))
    millions = sum(weight.numel() for weight in run.qwen.parameters()) / 1e6
    device = run.qwen.lm_head.weight.device
    told = f"ReportWriter(tiny, {millions:.1f} M weights on {device}, "
    assert repr(run) == told + "not calibrated)"
    fitted = plain_calibration(run.weights_sha256)
    (tmp_path / FILE).write_text(f'{{"calibration": {fitted.model_dump_json()}}}')
    assert repr(run) == told + "calibrated)"


def test_weights_are_read_when_needed_and_told_where_they_are_not_whole(tmp_path: Path) -> None:
    open_run(tmp_path, "train", {"recipe": RECIPE.model_dump(mode="json")})
    run = ReportWriter(tmp_path)
    assert run.recipe == RECIPE
    assert run.calibration is None
    with pytest.raises(CtscribeError, match="E_WEIGHTS"):
        _ = run.qwen
    with pytest.raises(CtscribeError, match="E_WEIGHTS"):
        load_writer(tmp_path)


def test_a_scan_in_memory_is_written_as_its_file_is(
    run: ReportWriter, make_chest: Callable[..., CTVolume], tmp_path: Path
) -> None:
    scan = make_chest()
    draft = run.write(scan)
    from_file = run.report(saved(tmp_path / "scan.nii.gz", scan), "case 7")
    assert (draft.source_kind, from_file.source_kind) == ("memory", "NIfTI")
    assert from_file.study == "case 7"
    assert draft.study.startswith("scan ")
    assert draft.study == run.write(scan).study
    assert draft.text == TEXT
    assert len(draft.sentences) == 3
    assert repr(draft) == f"Draft({draft.study!r}, states Lung nodule)"
    same_but_for_name_and_time(draft, from_file)


def test_what_is_no_chest_gets_a_reason_and_what_is_not_there_an_error(
    run: ReportWriter, make_chest: Callable[..., CTVolume], tmp_path: Path
) -> None:
    scan = make_chest()
    hu = np.random.default_rng(0).normal(0, 500, scan.hu.shape).astype(np.int16)
    noise = CTVolume(hu, scan.affine)
    for draft in (
        run.report(saved(tmp_path / "noise.nii.gz", noise), "noise"),
        run.write(noise, "noise"),
    ):
        assert draft.not_assessable
        assert (draft.text, draft.sentences, draft.findings) == ("", (), ())
        assert repr(draft) == f"Draft('noise', not assessable: {draft.not_assessable})"
    few = CTVolume(scan.hu[:, :, :2], scan.affine)
    for draft in (run.report(saved(tmp_path / "few.nii.gz", few)), run.write(few)):
        assert (draft.study, draft.prepared, draft.text) == ("scan", None, "")
        assert draft.not_assessable
    with pytest.raises(CtscribeError, match="E_MISSING"):
        run.report(tmp_path / "absent.nii.gz")


def test_a_draft_is_saved_as_its_suffix_says(
    run: ReportWriter, make_chest: Callable[..., CTVolume], tmp_path: Path
) -> None:
    draft = run.write(make_chest(), "case 7")
    for suffix, begins in (("html", "<!doctype html>"), ("txt", "DRAFT"), ("json", "{")):
        path = tmp_path / f"draft.{suffix}"
        draft.save(str(path))
        assert path.read_text(encoding="utf-8").lower().startswith(begins.lower())
    assert "case 7" in (tmp_path / "draft.html").read_text(encoding="utf-8")
    assert "A nodule is seen." in (tmp_path / "draft.txt").read_text(encoding="utf-8")
    found = read_json(tmp_path / "draft.json")
    assert (found["study"], found["impression"]) == ("case 7", ["Lung nodule."])
    with pytest.raises(CtscribeError, match=r"saved as .html, .txt or .json.*draft\.pdf.*E_OPTION"):
        draft.save(tmp_path / "draft.pdf")
    assert not (tmp_path / "draft.pdf").exists()
    with pytest.raises(ValueError, match="load_writer"):
        ReportWriter(run.run_dir).write(make_chest()).save(tmp_path / "draft.txt")
