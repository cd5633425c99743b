"""DICOM folders as they come: each fault has its own sentence, no slice is dropped in silence."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

from ctscribe.errors import CtscribeError
from ctscribe.volume.dicom import read_dicom
from ctscribe.volume.dicom_series import say_series
from ctscribe.volume.notes import Notes

STUDY = "scan-7"
ROWS, COLUMNS, DEPTH = 6, 5, 8
SECRET = "PLANTED^NAME"
SHARED = [HealthCheck.function_scoped_fixture]
Edit = Callable[[FileDataset, int], None]


def stored(z: int) -> np.ndarray:
    return np.random.default_rng(z).integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)


def make_slice(z: int, series: str = "1.2.3") -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(z)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.PatientID, image.PatientName, image.PatientBirthDate = "PLANTED-ID", SECRET, "19010203"
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", series, 4
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.InstanceNumber = DEPTH - z
    image.Rows, image.Columns = ROWS, COLUMNS
    image.PixelSpacing, image.SliceThickness = [0.8, 0.7], 2.0
    image.ImagePositionPatient = [-100.0, -90.0, 300.0 + 2 * z]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.PixelData = stored(z).tobytes()
    return image


def write_series(
    folder: Path, edit: Edit | None = None, *, series: str = "1.2.3", depth: int = DEPTH
) -> Path:
    folder.mkdir(exist_ok=True)
    for z in range(depth):
        image = make_slice(z, series)
        if edit:
            edit(image, z)
        # names in an order that is not the slices'
        image.save_as(folder / f"{series}-{(z * 5) % 8:02}-{z}.dcm", enforce_file_format=True)
    return folder


def refused(folder: Path) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        read_dicom(folder, STUDY)
    sentence = caught.value.sentence
    assert sentence.startswith(f"{STUDY} must ")
    assert "PLANTED" not in sentence
    assert "1901" not in sentence
    return caught.value


def expected_hu() -> np.ndarray:
    return np.stack([stored(z).T.astype(np.int16) - 1024 for z in range(DEPTH)], axis=2)


def test_series_in_order_of_position(tmp_path: Path) -> None:
    hu, affine, notes = read_dicom(write_series(tmp_path), STUDY)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, expected_hu())
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
    np.testing.assert_array_equal(hu[::-1, :, ::-1], expected_hu())
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
    np.testing.assert_array_equal(hu, expected_hu())


def test_fractional_slope_gives_real_numbers(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.RescaleSlope = 0.5

    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    assert hu.dtype == np.float32
    np.testing.assert_allclose(hu, (expected_hu() + 1024) * 0.5 - 1024)


def test_largest_series_is_taken_and_others_are_told(tmp_path: Path) -> None:
    write_series(tmp_path, series="1.2.9", depth=3)
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
    np.testing.assert_array_equal(hu, expected_hu())
    assert notes.codes == {"W_OTHER_FILES", "W_OTHER_SERIES"}
    series = notes.details["series"]
    named = {"series_number": 4, "plane": "axial", "thickness_mm": 2.0}
    assert series["chosen"] == {**named, "num_slices": 8}
    assert series["others"] == [{**named, "num_slices": 3}]
    assert "most slices" in series["rule"]
    assert say_series(series) == (
        "Read was series 4 (8 axial slices of 2 mm). Left aside: series 4 (3 axial slices of 2 mm)."
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
    np.testing.assert_array_equal(hu, expected_hu()[:, :, 1:])
    assert affine[2, 2] == 2.0


def shift(*missing: int) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        image.ImagePositionPatient[2] += 2 * sum(z >= at for at in missing)

    return edit


def on_slice(index: int, **tags: object) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        for tag, value in tags.items() if z == index or index < 0 else ():
            if value is None:
                delattr(image, tag)
            else:
                setattr(image, tag, value)

    return edit


def duplicate_position(image: FileDataset, z: int) -> None:
    if z == 4:
        image.ImagePositionPatient = [-100.0, -90.0, 300.0 + 2 * 3]


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (shift(4), "E_GAP", "about 1 are missing"),
        (shift(3, 3, 6), "E_GAP", "about 3 are missing"),
        (on_slice(4, ImagePositionPatient=[-100, -90, 308.5]), "E_UNEVEN_SPACING", "1.5 to 2.5"),
        (on_slice(4, ImagePositionPatient=[-98, -90, 308]), "E_UNEVEN_SPACING", "2.0 mm beside"),
        (duplicate_position, "E_DUPLICATE_SLICE", "one slice per position"),
        (on_slice(3, PatientID="OTHER"), "E_MIXED_PATIENT", "one patient"),
        (on_slice(3, PixelSpacing=[0.9, 0.9]), "E_MIXED_GEOMETRY", "one PixelSpacing"),
        (on_slice(3, Rows=ROWS - 1), "E_MIXED_GEOMETRY", "one image size"),
        (
            on_slice(3, ImageOrientationPatient=[1, 0, 0, 0, 0.99, 0.14]),
            "E_MIXED_GEOMETRY",
            "one I",
        ),
        (on_slice(3, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "E_GAP", "about 1"),
        (on_slice(3, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "E_DICOM_TAG", "ImageOrient"),
        (on_slice(3, ImagePositionPatient=None), "E_DICOM_TAG", "ImagePositionPatient"),
        (on_slice(3, PixelSpacing=[0, 0]), "E_DICOM_TAG", "PixelSpacing"),
        (on_slice(3, PixelSpacing=None), "E_DICOM_TAG", "PixelSpacing"),
        (on_slice(3, ImageOrientationPatient=None), "E_DICOM_TAG", "ImageOrientationPatient"),
        (on_slice(3, RescaleSlope=None), "E_NO_RESCALE", "slope and intercept"),
        (on_slice(-1, RescaleIntercept=None), "E_NO_RESCALE", "slope and intercept"),
        (on_slice(-1, Modality="MR"), "E_NOT_CT", "modalities: MR"),
        (on_slice(3, PixelData=b"\0" * 10), "E_TRUNCATED", "cut or damaged"),
        (on_slice(-1, Rows=65535), "E_TRUNCATED", "cut or damaged"),
        (on_slice(3, PixelData=None), "E_TRUNCATED", "cut or damaged"),
        (on_slice(-1, NumberOfFrames=3), "E_MULTIFRAME", "where each slice lies"),
        (on_slice(-1, SamplesPerPixel=3), "E_DATATYPE", "16 bits"),
    ],
)
def test_faults(tmp_path: Path, edit: Edit, code: str, says: str) -> None:
    error = refused(write_series(tmp_path, edit))
    assert error.code == code
    assert says in error.sentence


def test_a_repeated_slice_is_dropped_and_told(tmp_path: Path) -> None:
    write_series(tmp_path)
    make_slice(3).save_as(tmp_path / "again.dcm", enforce_file_format=True)
    hu, _, notes = read_dicom(tmp_path, STUDY)
    np.testing.assert_array_equal(hu, expected_hu())
    assert notes.codes == {"W_DUPLICATE_SLICE"}


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
        write_series(folder)
    victim = sorted(folder.iterdir())[data.draw(st.integers(0, DEPTH - 1))]
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


def test_elf_preamble_is_no_obstacle(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.preamble = b"\x7fELF" + b"\0" * 124

    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, expected_hu())
