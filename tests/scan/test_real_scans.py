"""One real chest CT as DICOM and as NIfTI: same place, same values, left is left."""

import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.intensity import to_hu
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from tests.scans import resample

GRID_MM = (1.5, 1.5, 2.5)


@cache
def chest(shared_data: Path) -> CTVolume:
    volume, notes = read_volume(shared_data / "ct/lung_dx_a0001_series", study="lung_dx_a0001")
    assert notes.codes == set()
    return volume


def at(volume: CTVolume, position_mm: np.ndarray) -> tuple[int, ...]:
    index = np.linalg.inv(volume.affine) @ [*position_mm, 1.0]
    return tuple(int(i) for i in np.rint(index[:3]))


def test_geometry_of_the_series(shared_data: Path) -> None:
    volume = chest(shared_data)
    assert volume.shape_xyz == (512, 512, 64)
    assert volume.spacing_mm == pytest.approx((0.841796875, 0.841796875, 5.0))
    assert volume.orientation == "RAS"
    assert volume.hu.min() >= -1024


def test_dicom_and_nifti_show_the_same(shared_data: Path) -> None:
    """The NIfTI is a 3 mm resampling by other software; broad tissue must agree in place."""
    volume = chest(shared_data)
    coarse, _ = read_volume(shared_data / "ct/Lung_Dx-A0001_L_3mm.nii.gz", study="coarse")
    index = np.stack(np.meshgrid(*[np.arange(n) for n in coarse.shape_xyz], indexing="ij"))
    ones = np.ones((1, index[0].size))
    to_fine = np.linalg.inv(volume.affine) @ coarse.affine
    places = (to_fine @ np.vstack([index.reshape(3, -1), ones]))[:3]
    sampled = ndimage.map_coordinates(
        volume.hu.astype(np.float32), places, order=1, mode="nearest"
    ).reshape(coarse.shape_xyz)
    assert np.median(np.abs(sampled - coarse.hu)) < 25

    def similarity(shift: int, axis: int) -> float:
        moved = np.roll(coarse.hu, shift, axis).astype(np.float64)
        return float(np.corrcoef(sampled.ravel(), moved.ravel())[0, 1])

    assert similarity(0, 0) > 0.97
    for axis in range(3):
        below, above = similarity(-1, axis), similarity(1, axis)
        assert max(below, above) < similarity(0, 0) - 0.03
        assert abs(below - above) < 0.002, "not even a part of a voxel off"


def test_tissues_have_their_hounsfield_units(shared_data: Path) -> None:
    hu = resample(chest(shared_data), GRID_MM).hu
    assert -1024 <= np.median(hu[:10, -20:, :]) < -950, "air beside the patient"
    lung = hu[(hu > -1000) & (hu < -500)]
    assert -950 < np.percentile(lung, 75) < -750, "lung"
    histogram, edges = np.histogram(hu[(hu > -200) & (hu < 200)], bins=80)
    smooth = ndimage.gaussian_filter1d(histogram.astype(float), 2)
    peaks = [edges[i] for i in range(1, 79) if smooth[i - 1] < smooth[i] > smooth[i + 1]]
    assert any(-125 < peak < -80 for peak in peaks), "fat"
    assert any(20 < peak < 80 for peak in peaks), "muscle, blood and liver"
    assert (hu > 300).mean() > 0.002, "bone"


def test_liver_right_and_heart_left(shared_data: Path) -> None:
    """+x runs to the patient's right: the liver's dome fills it low, the heart's apex is left."""
    volume = resample(chest(shared_data), GRID_MM)
    quiet = ndimage.gaussian_filter(volume.hu, 2)
    soft = (quiet > 0) & (quiet < 120)
    spine = (volume.hu > 250) & (volume.hu < 1500)
    middle = round(float(np.mean(np.argwhere(spine)[:, 0])))

    def right_share(z_mm: float) -> float:
        z = at(volume, np.array([0.0, 0.0, z_mm]))[2]
        left, right = (
            ndimage.binary_opening(half, iterations=6).sum()
            for half in (soft[:middle, :, z], soft[middle:, :, z])
        )
        return float(right / (left + right))

    assert right_share(-425.0) > 0.6
    assert right_share(-345.0) < 0.3


def stored_position_mm(shared_data: Path, column: float, row: float, index: int) -> np.ndarray:
    """Place of a stored pixel, from the DICOM tags alone; index counts from the feet."""
    names = sorted((shared_data / "ct/lung_dx_a0001_series").iterdir(), reverse=True)
    header = pydicom.dcmread(names[index], stop_before_pixels=True)
    x, y, z = (float(mm) for mm in header.ImagePositionPatient)
    row_mm, column_mm = (float(mm) for mm in header.PixelSpacing)
    return np.array([-(x + column * column_mm), -(y + row * row_mm), z])


def test_tumour_boxes_land_on_the_tumour(shared_data: Path) -> None:
    """Boxes that radiologists drew on the stored slices; their mirror images show lung."""
    volume = resample(chest(shared_data), GRID_MM)
    soft = (volume.hu > -100) & (volume.hu < 200)
    boxes = json.loads((shared_data / "ct/lung_dx_a0001_boxes.json").read_text())
    hits: list[float] = []
    mirrored: list[float] = []
    for index, [[_, left, top, right, bottom]] in boxes["Lung_Dx-A0001_L"].items():
        for columns, found in (((left, right), hits), ((511 - right, 511 - left), mirrored)):
            corners = [
                at(volume, stored_position_mm(shared_data, column, row, int(index)))
                for column, row in ((columns[0], top), (columns[1], bottom))
            ]
            (x1, y1, z), (x0, y0, _) = corners
            found.append(float(soft[x0:x1, y0:y1, z].mean()))
    assert np.mean(hits[:8]) > 0.55
    assert np.mean(mirrored[:8]) < 0.25


def test_the_livers_hounsfield_units(shared_data: Path) -> None:
    """Unenhanced liver has 40 to 75 HU, spine and ribs lie far above, fat far below."""
    volume = resample(chest(shared_data), GRID_MM)
    low = at(volume, np.array([0.0, 0.0, -425.0]))[2]
    quiet = ndimage.gaussian_filter(volume.hu[:, :, low - 2 : low + 3], 1.5)
    within_slices = np.ones((3, 3, 1), dtype=bool)
    soft = ndimage.binary_erosion((quiet > 0) & (quiet < 120), within_slices, iterations=4)
    places, _ = ndimage.label(soft)
    sizes = np.bincount(places.ravel())[1:]
    liver = places == 1 + int(np.argmax(sizes))
    middle = volume.shape_xyz[0] / 2
    assert np.argwhere(liver)[:, 0].mean() > middle, "the largest organ here lies on the right"
    assert 40 < np.median(volume.hu[:, :, low - 2 : low + 3][liver]) < 75


def test_dicom_and_a_nifti_of_the_same_voxels(shared_data: Path, tmp_path: Path) -> None:
    """Written from the tags alone, as converters do; SimpleITK, dcm2niix and dicom2nifti agree."""
    folder = shared_data / "ct/lung_dx_a0001_series"
    images = [pydicom.dcmread(path) for path in folder.iterdir()]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    first, last = images[0], images[-1]
    hu = np.stack(
        [one.pixel_array.T * one.RescaleSlope + one.RescaleIntercept for one in images], axis=2
    )
    lps = np.diag([*map(float, first.PixelSpacing[::-1]), 1.0, 1.0])
    ends = [np.array(one.ImagePositionPatient, dtype=float) for one in (first, last)]
    lps[:3, 2], lps[:3, 3] = (ends[1] - ends[0]) / (len(images) - 1), ends[0]
    image = nib.Nifti1Image(hu.astype(np.int16), np.diag([-1, -1, 1, 1]) @ lps)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "same.nii")
    volume, notes = read_volume(tmp_path / "same.nii", study="same")
    assert notes.codes == set()
    np.testing.assert_array_equal(volume.hu, chest(shared_data).hu)
    np.testing.assert_allclose(volume.affine, chest(shared_data).affine, atol=1e-4)


def test_padding_of_a_real_scanner_becomes_air(shared_data: Path) -> None:
    """A slab of LIDC-IDRI, padded with −2048 HU outside the reconstructed circle."""
    hu, _, _ = read_dicom(shared_data / "ct/lidc_0001_slab", "lidc")
    padding = hu < -1500
    assert padding.mean() > 0.15
    limited, notes = to_hu(hu, None, "auto", "lidc")
    assert notes.codes == {"W_PADDING"}
    assert notes.details["changed_voxels"] == {"W_PADDING": int(padding.sum())}
    assert (limited[padding] == -1024).all()
    with pytest.raises(CtscribeError, match="at least 20 axial slices, but has 16"):
        read_volume(shared_data / "ct/lidc_0001_slab", study="lidc")
