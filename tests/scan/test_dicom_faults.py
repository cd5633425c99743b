"""Faulty DICOM folders: each fault has its own sentence, no slice is dropped in silence."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom
from tests.dicom import Edit, on_slice
from tests.scan.dicom_slices import COLUMNS, ROWS, SHARED, STUDY, make_slice, refused, write_series


def shift(*missing: int) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        image.ImagePositionPatient[2] += 2 * sum(z >= at for at in missing)

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
        (on_slice(None, RescaleIntercept=None), "E_NO_RESCALE", "slope and intercept"),
        (on_slice(None, Modality="MR"), "E_NOT_CT", "modalities: MR"),
        (on_slice(3, PixelData=b"\0" * 10), "E_TRUNCATED", "cut or damaged"),
        (on_slice(None, Rows=65535), "E_TRUNCATED", "cut or damaged"),
        (on_slice(3, PixelData=None), "E_TRUNCATED", "cut or damaged"),
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
