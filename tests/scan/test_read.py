"""A scan of any release; a path that is not what it seems neither hangs nor loses a slice."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.read import fingerprint, read_grid, read_volume, sha256_of_source
from ctscribe.scan.volume import CTVolume
from tests.scans import coarse_chest

NAME = "train_1_a_1.nii.gz"


def metadata(
    spacing: tuple[float, float, float] | None = (6.0, 6.0, 8.0),
    orientation: tuple[float, ...] | None = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    position: tuple[float, float, float] | None = (-150.0, -120.0, 700.0),
    intercept: float | None = -1024.0,
) -> VolumeMetadata:
    slope = None if intercept is None else 1.0
    return VolumeMetadata(spacing, slope, intercept, position, orientation, "", None)


def save(folder: Path, hu: np.ndarray, affine: np.ndarray | None) -> Path:
    path = folder / NAME
    nib.save(nib.Nifti1Image(hu, affine), path)
    return path


def refused(path: Path, row: VolumeMetadata | None = None) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        read_volume(path, study=NAME, metadata=row)
    return caught.value


@pytest.fixture
def lps() -> CTVolume:
    """The chest as CT-RATE stores it: axes left, posterior, superior."""
    chest = coarse_chest()
    affine = np.diag([-6.0, -6.0, 8.0, 1.0])
    affine[:3, 3] = (150.0, 120.0, 700.0)
    return CTVolume(chest.hu, affine)


def test_v2_file_keeps_header_and_values(tmp_path: Path, lps: CTVolume) -> None:
    volume, notes = read_volume(save(tmp_path, lps.hu, lps.affine), study=NAME)
    assert volume.orientation == "RAS"
    np.testing.assert_array_equal(volume.hu[::-1, ::-1], np.maximum(lps.hu, -1024))
    assert "W_SPACING_METADATA" not in notes.codes
    assert notes.details["source"] == {
        "kind": "NIfTI",
        "spacing_mm": (6.0, 6.0, 8.0),
        "shape_xyz": lps.shape_xyz,
        "orientation": "LPS",
    }


@pytest.mark.parametrize("intercept", [-1024.0, -8192.0])
@pytest.mark.parametrize("header", [None, "identity"])
def test_v1_file_gives_the_same_volume_as_v2(
    tmp_path: Path, lps: CTVolume, intercept: float, header: str | None
) -> None:
    v2, _ = read_volume(save(tmp_path, lps.hu, lps.affine), study=NAME, metadata=metadata())
    raw = (lps.hu - int(intercept)).astype(np.int16)
    path = save(tmp_path, raw, None if header is None else np.eye(4))
    v1, _ = read_volume(path, study=NAME, metadata=metadata(intercept=intercept))
    np.testing.assert_array_equal(v1.hu, v2.hu)
    np.testing.assert_allclose(v1.affine, v2.affine)


def test_blank_header_needs_metadata(tmp_path: Path, lps: CTVolume) -> None:
    path = save(tmp_path, lps.hu, None)
    assert refused(path).code == "E_NO_GEOMETRY"
    assert refused(path, metadata(spacing=None)).code == "E_NO_SPACING"
    assert (
        refused(path, metadata(orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))).code == "E_ORIENTATION"
    )
    volume, notes = read_volume(path, study=NAME, metadata=metadata(position=None))
    assert "W_NO_POSITION" in notes.codes
    assert volume.spacing_mm == pytest.approx((6.0, 6.0, 8.0))


def test_true_header_wins_over_wrong_metadata(tmp_path: Path, lps: CTVolume) -> None:
    path = save(tmp_path, lps.hu, lps.affine)
    volume, notes = read_volume(path, study=NAME, metadata=metadata(spacing=(6.0, 6.0, 5.0)))
    assert volume.spacing_mm == pytest.approx((6.0, 6.0, 8.0))
    assert "W_SPACING_METADATA" in notes.codes


STUDY = "scan 1"


def code_of(path: Path) -> str:
    """Of the refusal, which is the same for the volume and for its grid alone."""
    codes = set()
    for read in (read_volume, read_grid):
        with pytest.raises(CtscribeError) as caught:
            read(path, study=STUDY)
        assert caught.value.sentence.startswith(f"{STUDY} must ")
        codes.add(caught.value.code)
    assert len(codes) == 1
    return codes.pop()


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
        (lambda path: path.symlink_to(path), "E_READ"),
        (lambda path: path.symlink_to("nowhere"), "E_MISSING"),
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
    assert code_of(path) == code


def test_a_shallow_volume_is_refused_by_its_header_alone(tmp_path: Path, lps: CTVolume) -> None:
    assert code_of(save(tmp_path, lps.hu[:, :, :19], lps.affine)) == "E_TOO_FEW_SLICES"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.touch(mode=0)
    assert code_of(path) == "E_READ"


def test_links_are_followed(tmp_path: Path) -> None:
    chest = coarse_chest()
    nib.save(nib.Nifti1Image(chest.hu, chest.affine), tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").symlink_to("a.nii")
    volume, _ = read_volume(tmp_path / "b.nii.gz", study=STUDY)
    np.testing.assert_array_equal(volume.hu, np.maximum(chest.hu, -1024))


def test_a_source_is_known_by_all_its_files(tmp_path: Path) -> None:
    for name in ("a.hdr", "a.img", "b.nii"):
        (tmp_path / name).write_bytes(name.encode())
    assert fingerprint(tmp_path / "a.img", NAME) == fingerprint(tmp_path / "a.hdr", NAME)
    assert fingerprint(tmp_path / "a.hdr", NAME)["source_bytes"] == 10
    pair, single = sha256_of_source(tmp_path / "a.hdr"), sha256_of_source(tmp_path / "b.nii")
    assert single == hashlib.sha256(b"b.nii").hexdigest()
    (tmp_path / "a.img").write_bytes(b"other")
    assert sha256_of_source(tmp_path / "a.hdr") != pair
    whole = sha256_of_source(tmp_path)
    (tmp_path / "b.nii").rename(tmp_path / "renamed")
    assert sha256_of_source(tmp_path) == whole
    with pytest.raises(CtscribeError, match="must be readable"):
        fingerprint(tmp_path / "none.nii", NAME)
