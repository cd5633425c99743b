"""`ctscribe report` on sources that leave a choice."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.files import read_json
from ctscribe.base.recipe import read_recipe
from ctscribe.cli.app import app
from tests.dicom import on_slice, write_series
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.scans import CHEST


@pytest.fixture
def run(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    small = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "generate.max_new_tokens=4")
    recipe = read_recipe("tiny", (*small, "volume.spacing_mm=[6,6,8]"))
    return write_run(tmp_path / "run", recipe, tiny_model(tokenizer), tokenizer)


def report(source: Path, run: Path, *options: str) -> str:
    out = run.parent / "-".join(("draft", *options))
    words = ["report", str(source), "--run", str(run), "--out", str(out), *options]
    app(words, result_action="return_value")
    return str(read_json(out / "report.json")["warnings"])


def test_a_series_is_chosen_by_number_or_uid(tmp_path: Path, run: Path) -> None:
    write_series(tmp_path / "study")
    write_series(
        tmp_path / "study", on_slice(None, SeriesNumber=5), series="1.2.9", slices=range(22)
    )
    assert "Read was series 4 (24" in report(tmp_path / "study", run)
    for asked in ("5", "1.2.9"):
        assert "Read was series 5 (22" in report(tmp_path / "study", run, "--series", asked)
    with refusal("E_SERIES", "series 5"):
        report(tmp_path / "study", run, "--series", "6")


def test_two_affines_are_refused_until_one_is_preferred(tmp_path: Path, run: Path) -> None:
    image = nib.Nifti1Image(CHEST.hu, CHEST.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(CHEST.affine, code=1)
    image.set_qform(CHEST.affine @ np.diag([1, 1, 1.2, 1]), code=1)
    nib.save(image, tmp_path / "scan.nii.gz")
    with refusal("E_GEOMETRY_CONFLICT", "--prefer sform"):
        report(tmp_path / "scan.nii.gz", run)
    for affine in ("sform", "qform"):
        report(tmp_path / "scan.nii.gz", run, "--prefer", affine)
    with refusal("E_OPTION", "must be DICOM where a series is asked for"):
        report(tmp_path / "scan.nii.gz", run, "--prefer", "sform", "--series", "4")
