"""A series in one enhanced file is the same as in many, and one file cannot cost much."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom
from tests.dicom import bytes_of
from tests.scan.dicom_slices import (
    COLUMNS,
    DEPTH,
    ROWS,
    STUDY,
    check,
    enhanced,
    group,
    make_slice,
    pack,
    put,
    refused,
    stored,
)


def test_enhanced_file(tmp_path: Path) -> None:
    path = put(tmp_path / "one.dcm", bytes_of(enhanced()))
    check(path)
    check(tmp_path)
    check(pack(tmp_path / "a.zip", {"one.dcm": path.read_bytes()}))


def test_compressed_enhanced_file(tmp_path: Path) -> None:
    image = enhanced()
    image.compress(RLELossless, generate_instance_uid=False)
    check(put(tmp_path / "one.dcm", bytes_of(image)))


def test_frames_may_have_their_own_scaling(tmp_path: Path) -> None:
    image = enhanced()
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for frame, item in enumerate(image.PerFrameFunctionalGroupsSequence):
        item.PixelValueTransformationSequence = group(RescaleSlope=1, RescaleIntercept=-frame)
    hu, _, _ = read_dicom(put(tmp_path / "one.dcm", bytes_of(image)), STUDY)
    np.testing.assert_array_equal(hu[:, :, DEPTH - 3], stored(DEPTH - 3).T.astype(np.int16) - 2)


Edit = Callable[[FileDataset], None]
ENHANCED = bytes_of(enhanced())


def without_position(image: FileDataset) -> None:
    del image.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def without_scaling(image: FileDataset) -> None:
    del image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence


def fewer_frames_stated(image: FileDataset) -> None:
    image.NumberOfFrames = DEPTH - 1


def without_groups(image: FileDataset) -> None:
    del image.PerFrameFunctionalGroupsSequence


def cut_pixels(image: FileDataset) -> None:
    image.PixelData = image.PixelData[:-2]


def a_localizer(image: FileDataset) -> None:
    image.ImageType = "LOCALIZER"


def localizer_frames(image: FileDataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence:
        item.CTImageFrameTypeSequence[0].FrameType[2] = "LOCALIZER"


def two_phases(image: FileDataset) -> None:
    for item in image.PerFrameFunctionalGroupsSequence[DEPTH // 2 :]:
        item.PlanePositionSequence[0].ImagePositionPatient[2] += DEPTH


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (without_position, "E_DICOM_TAG"),
        (without_scaling, "E_NO_RESCALE"),
        (fewer_frames_stated, "E_TRUNCATED"),
        (without_groups, "E_MULTIFRAME"),
        (cut_pixels, "E_TRUNCATED"),
        (a_localizer, "E_NOT_CT"),
        (localizer_frames, "E_NOT_CT"),
        (two_phases, "E_DUPLICATE_SLICE"),
    ],
)
def test_faulty_enhanced_files(tmp_path: Path, edit: Edit, code: str) -> None:
    image = enhanced()
    edit(image)
    assert refused(put(tmp_path / "one.dcm", bytes_of(image))).code == code


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_mutated_enhanced_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(ENHANCED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(132, len(changed) - 1))
        stop = at + data.draw(st.sampled_from([0, 1, 1, 1, 9]))
        changed[at:stop] = data.draw(st.binary(max_size=4))
    path = put(tmp_path_factory.getbasetemp() / "mutated.dcm", bytes(changed))
    told = ""
    try:
        hu, affine, _ = read_dicom(path, STUDY)
        assert hu.shape[:2] == (COLUMNS, ROWS)
        assert np.isfinite(affine).all()
    except CtscribeError as error:
        told = error.sentence
    assert "PLANTED" not in told


def test_one_classic_file_is_no_volume(tmp_path: Path) -> None:
    error = refused(put(tmp_path / "one.dcm", bytes_of(make_slice(0))))
    assert error.code == "E_TOO_FEW_SLICES"
    assert "but has one slice; give the whole series" in error.sentence


def test_wholly_deflated_files_are_not_inflated(tmp_path: Path) -> None:
    image = make_slice(0)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert refused(put(tmp_path / "one.dcm", bytes_of(image))).code == "E_CODEC"


def test_a_thousand_nested_sequences(tmp_path: Path) -> None:
    image = make_slice(0)
    inner = Dataset()
    for _ in range(150):
        outer = Dataset()
        outer.ReferencedSeriesSequence = [inner]
        inner = outer
    image.ReferencedSeriesSequence = [inner]
    content = bytes_of(image)
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"
    tag = item[8:]
    deep = (
        content.replace(tag, tag + item * 1000, 1)
        if tag in content
        else content + tag + item * 1000
    )
    assert refused(put(tmp_path / "one.dcm", deep)).code in ("E_TRUNCATED", "E_TOO_FEW_SLICES")


def test_an_element_of_four_gigabytes(tmp_path: Path) -> None:
    content = bytes_of(make_slice(0))
    at = content.index(b"\xe0\x7f\x10\x00OW") + 8
    huge = content[:at] + b"\xfe\xff\xff\xff" + content[at + 4 :]
    assert refused(put(tmp_path / "one.dcm", huge)).code in ("E_TRUNCATED", "E_TOO_FEW_SLICES")
