"""Sound scans as scanners and converters write them: each is read, none is refused."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset

from ctscribe.scan.read import read_grid, read_volume
from ctscribe.scan.volume import CTVolume, Notes
from tests.dicom import Edit, on_slice, write_series
from tests.scans import CHEST, chest

_thin = chest((160, 128, 40), (2.0, 2.0, 0.5))
THIN = CTVolume(np.maximum(_thin.hu, -1024), _thin.affine)
CORNER = (slice(0, 3), slice(0, 3))


def read(path: Path) -> tuple[CTVolume, Notes]:
    """Also that the header alone tells the same grid."""
    volume, notes = read_volume(path, study="s")
    grid, _ = read_grid(path, study="s")
    assert grid.shape_xyz == volume.shape_xyz
    np.testing.assert_allclose(grid.affine, volume.affine)
    return volume, notes


def test_rounded_positions_of_thin_slices(tmp_path: Path) -> None:
    """0.01 mm off in every direction is 1.6 degrees from slice to slice, and still no tilt."""
    random = np.random.default_rng(0)

    def jitter(image: FileDataset, z: int) -> None:
        off = random.uniform(-0.01, 0.01, 3)
        image.ImagePositionPatient = [
            round(float(mm), 3) for mm in np.array(image.ImagePositionPatient) + off
        ]

    volume, notes = read(write_series(tmp_path / "a", jitter, volume=THIN))
    assert notes.codes == set()
    np.testing.assert_array_equal(volume.hu, THIN.hu)
    assert volume.spacing_mm == pytest.approx((2.0, 2.0, 0.5), abs=1e-3)


def test_a_last_slice_that_lies_a_little_off(tmp_path: Path) -> None:
    edit = on_slice(23, ImagePositionPatient=[-168, -134, 700 + 5 * 23 + 0.4])
    volume, notes = read(write_series(tmp_path / "a", edit))
    assert notes.codes == set()
    assert volume.spacing_mm[2] == pytest.approx(5.0, abs=0.02)


@pytest.mark.parametrize("degrees", [1.0, 3.0, -6.0])
def test_an_oblique_stack_is_no_leaning_one(tmp_path: Path, degrees: float) -> None:
    """Slices and stack turned together, about x and then z, as a head rest leaves them."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    )

    def edit(image: FileDataset, z: int) -> None:
        image.ImageOrientationPatient = [round(float(v), 6) for v in (*turn[:, 0], *turn[:, 1])]
        first = turn @ np.array(image.ImagePositionPatient, dtype=float)
        image.ImagePositionPatient = [round(float(mm), 4) for mm in first]

    volume, notes = read(write_series(tmp_path / "a", edit))
    assert notes.codes == set()
    np.testing.assert_array_equal(volume.hu, CHEST.hu)
    ras = np.diag([-1, -1, 1]) @ turn @ np.diag([-1, -1, 1])
    wanted = np.eye(4)
    wanted[:3] = ras @ CHEST.affine[:3]
    np.testing.assert_allclose(volume.affine, wanted, atol=0.01)


def test_a_gantry_tilted_by_two_degrees(tmp_path: Path) -> None:
    """Slices turned about x while the table keeps its direction."""
    angle = np.radians(2.0)

    def edit(image: FileDataset, z: int) -> None:
        image.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle))]

    volume, notes = read(write_series(tmp_path / "a", edit))
    assert notes.codes == {"W_TILT"}
    assert notes.details["tilt_degrees"] == pytest.approx(2.0, abs=0.01)
    assert volume.spacing_mm[2] == pytest.approx(5 * np.cos(angle))


def padded(value: int, signed: bool, bits: int) -> Edit:
    """A corner outside the reconstructed circle, as the scanner marks it."""

    def edit(image: FileDataset, z: int) -> None:
        shift = 1024 if signed else 0
        stored = np.frombuffer(image.PixelData, "<u2").astype(np.int32) - shift
        stored = stored.reshape(image.Rows, image.Columns)
        stored[-3:, -3:] = value
        image.PixelData = (stored & 0xFFFF).astype("<u2").tobytes()
        image.PixelRepresentation, image.RescaleIntercept = int(signed), -1024 + shift
        image.BitsStored, image.HighBit = bits, bits - 1
        image.add_new("PixelPaddingValue", "SS" if signed else "US", value)

    return edit


@pytest.mark.parametrize(
    ("value", "signed", "bits"),
    [
        (-2000, True, 16),
        (-2048, True, 12),
        (-3024, True, 16),
        (-32768, True, 16),
        (-2000, True, 11),  # beyond the stated bits
        (63_536, False, 12),  # −2000 of a signed scanner, called unsigned
        (0, False, 12),
        (4095, False, 12),  # the highest value, which would be metal
    ],
)
def test_padding_is_air(tmp_path: Path, value: int, signed: bool, bits: int) -> None:
    volume, notes = read(write_series(tmp_path / "a", padded(value, signed, bits)))
    assert notes.codes <= {"W_PADDING"}
    assert (volume.hu[CORNER] == -1024).all()
    rest = np.ones(CHEST.hu.shape, dtype=bool)
    rest[CORNER] = False
    np.testing.assert_array_equal(volume.hu[rest], CHEST.hu[rest])


TAGS: dict[str, Edit] = {
    "RescaleType": on_slice(None, RescaleType="HU"),
    "unspecified RescaleType": on_slice(None, RescaleType="US"),
    "slope with decimals": on_slice(None, RescaleSlope="1.000000", RescaleIntercept="-1024.0"),
    "no SliceThickness": on_slice(None, SliceThickness=None),
    "no ImageType": on_slice(None, ImageType=None),
    "no SeriesNumber": on_slice(None, SeriesNumber=None),
    "no InstanceNumber": on_slice(None, InstanceNumber=None),
    "no patient": on_slice(None, PatientID=None, PatientName=None),
    "derived": on_slice(None, ImageType=["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI"]),
    "overlay": lambda image, z: image.add_new(0x60003000, "OW", bytes(2560)),
    "windows": on_slice(None, WindowCenter=[40, -600], WindowWidth=[400, 1500]),
    "several kernels": on_slice(None, ConvolutionKernel=["I70f", "2"]),
    "contrast": on_slice(None, ContrastBolusAgent="Iopamidol"),
    "thorax and abdomen": on_slice(None, BodyPartExamined="CHESTABDPELVIS"),
    "MONOCHROME1": on_slice(None, PhotometricInterpretation="MONOCHROME1"),
    "no HighBit": on_slice(None, HighBit=None),
    "spaces": on_slice(None, RescaleIntercept="-1024 "),
}


@pytest.mark.parametrize("name", TAGS)
def test_what_headers_may_say_and_leave_out(tmp_path: Path, name: str) -> None:
    volume, notes = read(write_series(tmp_path / "a", TAGS[name]))
    assert notes.codes == set()
    np.testing.assert_array_equal(volume.hu, CHEST.hu)


def test_names_and_folders_of_an_export(tmp_path: Path) -> None:
    """Media as burned for a patient: subfolders, no suffixes, a directory, a viewer."""
    write_series(tmp_path / "DICOM")
    for index, path in enumerate(sorted((tmp_path / "DICOM").iterdir())):
        target = tmp_path / "Görüntüler 1" / f"ST{index % 2}" / "SE000001"
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / f"IM{index:06}")
    (tmp_path / "AUTORUN.INF").write_text("[autorun]")
    (tmp_path / "VIEWER").mkdir()
    (tmp_path / "VIEWER" / "viewer.exe").write_bytes(b"MZ" + bytes(300))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    volume, notes = read(tmp_path)
    assert notes.codes == {"W_OTHER_FILES"}
    np.testing.assert_array_equal(volume.hu, CHEST.hu)


def as_dcm2niix(image: nib.Nifti1Image) -> None:
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"TE=0;Time=101010.000"
    image.header["cal_min"], image.header["cal_max"] = -1350, 150
    image.header["dim_info"] = 48


def as_simple_itk(image: nib.Nifti1Image) -> None:
    image.header.set_xyzt_units("mm", "sec")
    image.header["regular"] = b"r"
    image.header["scl_slope"], image.header["scl_inter"] = 1, 0


def as_aligned(image: nib.Nifti1Image) -> None:
    image.header["sform_code"], image.header["qform_code"] = 2, 1


def without_sform(image: nib.Nifti1Image) -> None:
    image.set_sform(None, code=0)


def without_qform(image: nib.Nifti1Image) -> None:
    image.header["qform_code"] = 0


@pytest.mark.parametrize(
    "edit", [as_dcm2niix, as_simple_itk, as_aligned, without_sform, without_qform]
)
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_as_converters_write_it(
    tmp_path: Path, edit: Callable[[nib.Nifti1Image], None], dtype: str, suffix: str
) -> None:
    """Axes left, posterior, superior, as DICOM's are."""
    affine = CHEST.affine @ np.diag([-1, -1, 1, 1])
    affine[:2, 3] = CHEST.affine[:2, :2] @ (np.array(CHEST.shape_xyz[:2]) - 1) + CHEST.affine[:2, 3]
    hu = np.ascontiguousarray(CHEST.hu[::-1, ::-1]).astype(dtype)
    image = nib.Nifti1Image(hu, affine, dtype=hu.dtype)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    edit(image)
    nib.save(image, tmp_path / f"scan{suffix}")
    volume, notes = read(tmp_path / f"scan{suffix}")
    assert notes.codes == set()
    np.testing.assert_array_equal(volume.hu, CHEST.hu)
    np.testing.assert_allclose(volume.affine, CHEST.affine, atol=1e-4)


def test_raw_values_with_the_headers_own_scaling(tmp_path: Path) -> None:
    for dtype, slope, intercept in (("u2", 1.0, -1024.0), ("i2", 0.5, -1024.0)):
        stored = ((CHEST.hu.astype(np.int32) + 1024) / slope).astype(dtype)
        image = nib.Nifti1Image(stored, CHEST.affine)
        image.header.set_xyzt_units("mm")
        image.header.set_slope_inter(slope, intercept)
        content = bytearray(image.to_bytes())
        content[112:120] = np.array([slope, intercept], "<f4").tobytes()
        (tmp_path / "scan.nii").write_bytes(bytes(content))
        volume, notes = read(tmp_path / "scan.nii")
        assert notes.codes == set()
        np.testing.assert_array_equal(volume.hu, CHEST.hu)
