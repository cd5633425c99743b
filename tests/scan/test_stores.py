from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json
from ctscribe.scan.nifti import read_nifti
from ctscribe.scan.nifti_header import choose_affine
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.stores import check_stores, read_normalised, store_paths, write_stores
from tests.refusals import refusal
from tests.scans import coarse_chest, resample

SPACING = (3.0, 4.0, 5.0)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_stores(
        tmp_path, "a", plan_resampling(coarse_chest(), SPACING), {"volume_name": "a.nii.gz"}
    )
    return tmp_path


def test_npy_is_zxy_normalised_float(out: Path) -> None:
    array = read_normalised(out, "a")
    hu = resample(coarse_chest(), SPACING).hu
    assert array.dtype == np.float32
    expected = np.clip(hu, -1000, 1000).transpose(2, 0, 1) / 1000
    np.testing.assert_allclose(array, expected, atol=1e-6)


def test_nifti_is_hu_with_geometry_for_others_and_for_us(out: Path) -> None:
    volume = resample(coarse_chest(), SPACING)
    path = out / "preprocessed/a.nii.gz"
    image = nib.load(path)
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine, volume.affine, atol=1e-4)
    np.testing.assert_allclose(image.header.get_qform(), volume.affine, atol=1e-4)
    assert np.abs(np.asarray(image.dataobj) - volume.hu).max() <= 0.5
    values, header, notes = read_nifti(path, "a")
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))
    assert notes.codes == set()
    assert choose_affine(header, "a", None) is not None


def test_sidecar_says_what_the_numbers_are(out: Path) -> None:
    sidecar = read_json(out / "preprocessed_npy/a.json")
    assert sidecar["axes"] == ["z (superior)", "x (right)", "y (anterior)"]
    assert sidecar["shape_zxy"] == list(read_normalised(out, "a").shape)
    assert "half-pixel" in sidecar["grid"]
    assert sidecar["volume_name"] == "a.nii.gz"


def test_same_volume_same_bytes(out: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = tmp_path_factory.mktemp("again")
    write_stores(again, "a", plan_resampling(coarse_chest(), SPACING), {"volume_name": "a.nii.gz"})
    files = sorted(path.relative_to(out) for path in out.rglob("*.*") if path.is_file())
    assert len(files) == 3
    for file in files:
        assert (out / file).read_bytes() == (again / file).read_bytes()


@pytest.mark.parametrize("which", [0, 1])
def test_damage_is_noticed(out: Path, which: int) -> None:
    check_stores(out, "a")
    path = store_paths(out, "a")[which]
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    for damaged in (content, content[:-1]):
        path.write_bytes(damaged)
        with refusal("E_CACHE", "a must have the files that were stored"):
            check_stores(out, "a")
    path.unlink()
    with pytest.raises(CtscribeError, match="missing or damaged"):
        check_stores(out, "a")


def test_nothing_partial_is_left_when_reading_fails(tmp_path: Path) -> None:
    planned = plan_resampling(coarse_chest(), SPACING)
    planned.taps_xyz[2].indices[-1] = 10_000  # the last slice cannot be computed
    with pytest.raises(IndexError):
        write_stores(tmp_path, "a", planned, {})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
