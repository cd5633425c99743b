"""Paths that are not what they seem: a sentence, and neither a hang nor a slice less."""

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.read import read_grid, read_volume
from ctscribe.scan.volume import CTVolume

STUDY = "scan 1"


def refused(path: Path) -> str:
    codes = set()
    for read in (read_volume, read_grid):
        with pytest.raises(CtscribeError) as caught:
            read(path, study=STUDY)
        assert caught.value.sentence.startswith(f"{STUDY} must ")
        codes.add(caught.value.code)
    assert len(codes) == 1
    return codes.pop()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_folder_with_dangling_slice(path: Path) -> None:
    path.mkdir()
    (path / "1.dcm").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "E_MISSING"),
        (Path.touch, "E_EMPTY"),
        (Path.mkdir, "E_NOT_DICOM"),
        (os.mkfifo, "E_READ"),
        (make_loop, "E_READ"),
        (make_dangling, "E_MISSING"),
        (make_folder_with_dangling_slice, "E_READ"),
        (lambda path: path.symlink_to("/dev/zero"), "E_READ"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii.gz", "-rf ü\n=cmd().dcm", "a" * 250])
def test_what_is_no_file(
    tmp_path: Path, make: Callable[[Path], None], code: str, name: str
) -> None:
    path = tmp_path / name
    make(path)
    assert refused(path) == code


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.touch(mode=0)
    assert refused(path) == "E_READ"


def test_links_are_followed(tmp_path: Path, make_chest: Callable[..., CTVolume]) -> None:
    chest = make_chest()
    nib.save(nib.Nifti1Image(chest.hu, chest.affine), tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").symlink_to("a.nii")
    volume, _ = read_volume(tmp_path / "b.nii.gz", study=STUDY)
    np.testing.assert_array_equal(volume.hu, np.maximum(chest.hu, -1024))
