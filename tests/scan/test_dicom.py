"""DICOM folders as they come: the series in them is read, whatever lies beside it."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.volume import Notes
from tests.dicom import Edit
from tests.scan.dicom_slices import COLUMNS, HU, STUDY, make_slice, stored, write_series


def test_series_in_order_of_position(tmp_path: Path) -> None:
    hu, affine, notes = read_dicom(write_series(tmp_path), STUDY)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, HU)
    np.testing.assert_allclose(np.diag(affine), (-0.7, -0.8, 2.0, 1.0))
    np.testing.assert_allclose(affine[:3, 3], (100.0, 90.0, 300.0))
    assert notes == Notes()


def test_feet_first_lies_at_the_same_place(tmp_path: Path) -> None:
    """Rows run right to left and the normal points to the feet; positions say where all is."""

    def turn(image: FileDataset, z: int) -> None:
        image.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
        image.ImagePositionPatient = [-100.0 + 0.7 * (COLUMNS - 1), -90.0, 300.0 + 2 * z]
        image.PixelData = stored(z)[:, ::-1].tobytes()

    hu, affine, _ = read_dicom(write_series(tmp_path, turn), STUDY)
    np.testing.assert_array_equal(hu[::-1, :, ::-1], HU)
    np.testing.assert_allclose(np.diag(affine), (0.7, -0.8, -2.0, 1.0))


def as_big_endian(image: FileDataset, z: int) -> None:
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    image.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    image.PixelData = stored(z).astype(">u2").tobytes()


def as_implicit(image: FileDataset, z: int) -> None:
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def as_rle(image: FileDataset, z: int) -> None:
    image.compress(RLELossless, generate_instance_uid=False)


def as_jpeg_2000(image: FileDataset, z: int) -> None:
    stream = BytesIO()
    Image.fromarray(stored(z)).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    image.file_meta.TransferSyntaxUID = JPEG2000Lossless
    image.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    image.BitsStored, image.HighBit = 16, 15
    image["PixelData"].VR = "OB"


def as_signed(image: FileDataset, z: int) -> None:
    image.PixelRepresentation = 1
    image.RescaleIntercept = 0
    image.PixelData = (stored(z).astype(np.int16) - 1024).tobytes()


def with_own_intercepts(image: FileDataset, z: int) -> None:
    image.RescaleIntercept = -1024 - z
    image.PixelData = (stored(z) + np.uint16(z)).tobytes()


@pytest.mark.parametrize(
    "edit",
    [as_big_endian, as_implicit, as_rle, as_jpeg_2000, as_signed, with_own_intercepts],
)
def test_the_same_hu_however_stored(tmp_path: Path, edit: Edit) -> None:
    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU)


def test_fractional_slope_gives_real_numbers(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.RescaleSlope = 0.5

    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    assert hu.dtype == np.float32
    np.testing.assert_allclose(hu, (HU + 1024) * 0.5 - 1024)


def test_largest_series_is_taken_and_others_are_told(tmp_path: Path) -> None:
    write_series(tmp_path, series="1.2.9", slices=range(3))
    write_series(tmp_path)
    localizer = make_slice(0, "1.2.7")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.save_as(tmp_path / "scout.dcm", enforce_file_format=True)
    film = make_slice(0, "1.2.6")
    film.SOPClassUID, film.NumberOfFrames = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, 40
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    report = make_slice(0, "1.2.8")
    report.Modality = "SR"
    report.save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    (tmp_path / "LICENSE").write_text("words")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 200)
    hu, _, notes = read_dicom(tmp_path, STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_OTHER_FILES", "W_OTHER_SERIES"}
    series = notes.details["series"]
    named = {"series_number": 4, "plane": "axial", "thickness_mm": 2.0}
    assert series["chosen"] == {**named, "num_slices": 24}
    assert series["others"] == [{**named, "num_slices": 3}]
    assert "most slices" in series["rule"]
    assert say_series(series) == (
        "Read was series 4 (24 axial slices of 2 mm). "
        "Left aside: series 4 (3 axial slices of 2 mm)."
    )


def test_of_equal_series_the_thinnest_is_taken(tmp_path: Path) -> None:
    def thick(image: FileDataset, z: int) -> None:
        image.SliceThickness = 5.0
        image.ImagePositionPatient = [-100.0, -90.0, 300.0 + 5 * z]

    write_series(tmp_path, thick, series="1.2.1")
    _, affine, _ = read_dicom(write_series(tmp_path), STUDY)
    assert affine[2, 2] == 2.0


def test_localizer_within_the_series(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        if z == 0:
            image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    hu, affine, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU[:, :, 1:])
    assert affine[2, 2] == 2.0


def test_a_repeated_slice_is_dropped_and_told(tmp_path: Path) -> None:
    write_series(tmp_path)
    make_slice(3).save_as(tmp_path / "again.dcm", enforce_file_format=True)
    hu, _, notes = read_dicom(tmp_path, STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_DUPLICATE_SLICE"}


def test_elf_preamble_is_no_obstacle(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.preamble = b"\x7fELF" + b"\0" * 124

    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU)
