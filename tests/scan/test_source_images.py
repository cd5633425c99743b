"""The images that a series consists of, and whose they are."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset

from ctscribe.scan.dicom import read_dicom
from ctscribe.scan.source_images import read_source_series
from tests.dicom import Edit, bytes_of, enhanced_of, on_slice, slice_of, write_series
from tests.drafts import IDENTITY, PLACE, with_identity
from tests.refusals import refusal
from tests.scans import CHEST

SIZE = CHEST.shape_xyz


def both(first: Edit, second: Edit) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        first(image, z)
        second(image, z)

    return edit


def test_images_come_in_order_and_without_identity(tmp_path: Path) -> None:
    source = read_source_series(write_series(tmp_path / "s"), "scan 7", with_identity=False)
    heights = [float(one.position_lps_mm[2]) for one in source.images]
    assert heights == [700.0 + 5 * z for z in range(SIZE[2])]
    assert source.identity is None
    assert {(one.frame, one.uids) for one in source.images} == {(None, None)}
    assert [one.file for one in source.images] == [*range(SIZE[2])]


@pytest.mark.parametrize("charset", ["ISO_IR 192", "ISO_IR 100"])
def test_identity_is_read_as_it_was_written(tmp_path: Path, charset: str) -> None:
    def edit(image: FileDataset, z: int) -> None:
        with_identity(image, z)
        image.SpecificCharacterSet = charset
        image.ReferringPhysicianName = "Ünal^Åsa"

    source = read_source_series(write_series(tmp_path / "s", edit), "scan 7", with_identity=True)
    assert source.identity == IDENTITY | {"ReferringPhysicianName": "Ünal^Åsa"}
    names = {one.uids for one in source.images}
    assert len(names) == SIZE[2]
    assert {name[1:] for name in names if name} == {("1.2.3", PLACE)}


def test_frames_of_one_file_are_numbered_from_its_first(tmp_path: Path) -> None:
    path = tmp_path / "enhanced.dcm"
    image = enhanced_of(CHEST)
    with_identity(image, 0)
    path.write_bytes(bytes_of(image))
    source = read_source_series(path, "scan 7", with_identity=True)
    assert [one.frame for one in source.images] == [*range(SIZE[2], 0, -1)]  # it runs downwards
    assert len({one.uids for one in source.images}) == 1


def test_places_and_pixels_agree_with_the_volume(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    _, affine, _ = read_dicom(folder, "scan 7")
    source = read_source_series(folder, "scan 7", with_identity=False)
    for voxel in ((0, 0, 0), (31, 57, 11), (SIZE[0] - 1, SIZE[1] - 1, SIZE[2] - 1)):
        place = (affine @ (*voxel, 1.0))[:3]
        image = source.nearest(place)
        assert image is source.images[voxel[2]]
        (pixel,) = source.in_pixels(image, place[None])
        np.testing.assert_allclose(pixel, np.array(voxel[:2]) + 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        *(("StudyInstanceUID", None), ("StudyInstanceUID", ""), ("PatientID", None)),
        *(
            ("FrameOfReferenceUID", None),
            ("PatientBirthDate", "19010203-"),
            ("StudyDate", "19011301"),
        ),
        *(("PatientID", "PLANTED\nB"), ("StudyDescription", ["PLANTED", "B"])),
        *(("PatientName", "PLANTED" * 20), ("AccessionNumber", "PLANTED" * 3)),
    ],
)
@pytest.mark.filterwarnings("ignore")  # pydicom's, at writing what is wrong on purpose
def test_an_identity_that_no_document_can_bear_is_refused(
    tmp_path: Path, tag: str, value: object
) -> None:
    folder = write_series(tmp_path / "s", both(with_identity, on_slice(None, **{tag: value})))
    with refusal("E_DICOM_TAG", f"must have a usable {tag} in each slice") as caught:
        read_source_series(folder, "scan 7", with_identity=True)
    assert "PLANTED" not in str(caught.value)
    assert read_source_series(folder, "scan 7", with_identity=False).identity is None


def test_bytes_that_no_character_set_explains_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", with_identity)
    for path in folder.iterdir():
        content = path.read_bytes()
        assert "Müller".encode() in content
        path.write_bytes(content.replace("Mü".encode(), b"M\xff\xfe"))
    with refusal("E_DICOM_TAG", "usable PatientName"):
        read_source_series(folder, "scan 7", with_identity=True)


@pytest.mark.parametrize("tag", ["PatientName", "StudyInstanceUID", "AccessionNumber"])
def test_slices_that_disagree_on_patient_or_study_are_refused(tmp_path: Path, tag: str) -> None:
    other = on_slice(7, **{tag: "1.2.3"})
    folder = write_series(tmp_path / "s", both(with_identity, other))
    with refusal("E_MIXED_PATIENT", f"{tag} differs between its slices"):
        read_source_series(folder, "scan 7", with_identity=True)


def test_the_series_that_is_asked_for_is_the_one_referred_to(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", with_identity)
    for z in range(21):
        image = slice_of(z, series="1.2.9")
        with_identity(image, z)
        image.SeriesNumber = 5
        (folder / f"other-{z}.dcm").write_bytes(bytes_of(image))
    for asked, series in ((None, "1.2.3"), ("4", "1.2.3"), ("5", "1.2.9"), ("1.2.9", "1.2.9")):
        source = read_source_series(folder, "scan 7", asked, with_identity=True)
        assert {one.uids[1] for one in source.images if one.uids} == {series}
