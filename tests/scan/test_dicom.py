"""DICOM folders as they come: the series in them is read, whatever lies beside it."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import UID, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.volume import Notes
from tests.dicom import Edit, on_slice
from tests.scan.dicom_slices import (
    COLUMNS,
    HU,
    ROWS,
    SHARED,
    STUDY,
    make_slice,
    refused,
    stored,
    write_series,
)


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


def test_signed_pixels(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.PixelRepresentation, image.RescaleIntercept = 1, 0
        image.PixelData = (stored(z).astype(np.int16) - 1024).tobytes()

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


def test_series_of_another_study_are_told_as_such(tmp_path: Path) -> None:
    write_series(tmp_path, on_slice(None, StudyInstanceUID="9.8"), series="1.1", slices=range(22))
    write_series(tmp_path, on_slice(None, StudyInstanceUID="9.7"))
    _, _, notes = read_dicom(tmp_path, STUDY)
    assert say_series(notes.details["series"]) == (
        "Read was series 4 (24 axial slices of 2 mm). "
        "Left aside: series 4 (22 axial slices of 2 mm, of another study)."
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


def shift(*missing: int) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        image.ImagePositionPatient[2] += 2 * sum(z >= at for at in missing)

    return edit


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (shift(3, 3, 6), "E_GAP", "about 3 are missing"),
        (on_slice(4, ImagePositionPatient=[-100, -90, 308.5]), "E_UNEVEN_SPACING", "1.5 to 2.5"),
        (on_slice(4, ImagePositionPatient=[-98, -90, 308]), "E_UNEVEN_SPACING", "2.0 mm beside"),
        (
            on_slice(3, ImageOrientationPatient=[1, 0, 0, 0, 0.99, 0.14]),
            "E_MIXED_GEOMETRY",
            "one I",
        ),
        (on_slice(3, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "E_GAP", "about 1"),
        (on_slice(3, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "E_DICOM_TAG", "ImageOrient"),
        (on_slice(3, ImageOrientationPatient=None), "E_DICOM_TAG", "ImageOrientationPatient"),
        (on_slice(3, RescaleSlope=None), "E_NO_RESCALE", "slope and intercept"),
        (on_slice(None, RescaleIntercept=None), "E_NO_RESCALE", "slope and intercept"),
        (on_slice(3, PixelData=None), "E_TRUNCATED", "cut or damaged"),
        (on_slice(None, Rows=ROWS - 1), "E_TRUNCATED", "bytes more"),
        (on_slice(None, NumberOfFrames=3), "E_MULTIFRAME", "where each slice lies"),
        (on_slice(None, SamplesPerPixel=3), "E_DATATYPE", "16 bits"),
    ],
)
def test_faults(tmp_path: Path, edit: Edit, code: str, says: str) -> None:
    error = refused(write_series(tmp_path, edit))
    assert error.code == code
    assert says in error.sentence


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_cut_file_is_never_passed_over(tmp_path: Path, share: float) -> None:
    write_series(tmp_path)
    victim = sorted(tmp_path.iterdir())[3]
    content = victim.read_bytes()
    victim.write_bytes(content[: int(len(content) * share)])
    assert refused(tmp_path).code in ("E_TRUNCATED", "E_DICOM_TAG", "E_NO_RESCALE")


@settings(max_examples=200, deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_mutated_bytes_give_a_volume_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated"
    if not folder.exists():
        write_series(folder, slices=range(8))
    victim = sorted(folder.iterdir())[data.draw(st.integers(0, 7))]
    whole = victim.read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(changed) - 1))
        stop = at + data.draw(st.sampled_from([0, 1, 1, 1, 9]))
        changed[at:stop] = data.draw(st.binary(max_size=4))
    victim.write_bytes(changed)
    try:
        hu, affine, _ = read_dicom(folder, STUDY)
    except CtscribeError as error:
        told = error.sentence
    else:
        told = ""
        assert hu.shape[:2] == (COLUMNS, ROWS)
        assert np.isfinite(affine).all()
    finally:
        victim.write_bytes(whole)
    assert "PLANTED" not in told


def test_a_syntax_nobody_knows_is_not_quoted(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.file_meta.TransferSyntaxUID = UID("1.2.3.4")
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
        image["PixelData"].VR = "OB"

    error = refused(write_series(tmp_path, edit))
    assert error.code == "E_CODEC"
    assert "but it cannot" in error.sentence
    assert "1.2.3.4" not in error.sentence


def test_folders_without_a_series(tmp_path: Path) -> None:
    assert refused(tmp_path).code == "E_NOT_DICOM"
    (tmp_path / "notes.txt").write_text("words")
    assert refused(tmp_path).code == "E_NOT_DICOM"
    make_slice(0).save_as(tmp_path / "one.dcm", enforce_file_format=True)
    assert refused(tmp_path).code == "E_TOO_FEW_SLICES"
