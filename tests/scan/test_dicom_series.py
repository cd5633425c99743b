"""Of several series the one is read that shows the chest as it was scanned, or is asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset

from ctscribe.scan.dicom import read_dicom, read_dicom_grid
from ctscribe.scan.dicom_series import ASKED, say_series
from ctscribe.scan.volume import CTVolume
from tests.dicom import Edit, bytes_of, enhanced_of, group, on_slice, slice_of
from tests.refusals import refusal
from tests.scan.dicom_slices import AFFINE, HU, SMALL, STUDY, write_series

MORE = CTVolume(
    np.repeat(SMALL.hu, 2, axis=2),
    np.diag([0.7, 0.8, 1.0, 1.0]) + (AFFINE - np.diag(np.diag(AFFINE))),
)
"""Twice as many slices, half as far apart."""
CORONAL = [1, 0, 0, 0, 0, -1]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def across(directions: list[int], **tags: object) -> Edit:
    """A stack in another plane than the axial one."""
    step = np.abs(np.cross(directions[:3], directions[3:]))

    def edit(image: FileDataset, z: int) -> None:
        image.ImageOrientationPatient = directions
        image.ImagePositionPatient = (step * 2 * z).tolist()
        on_slice(None, **tags)(image, z)

    return edit


@pytest.mark.parametrize(
    "kind",
    [
        ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"],
        ["DERIVED", "PRIMARY", "AXIAL", "IODINE"],
        ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"],
        ["DERIVED", "SECONDARY"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "MIP"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "MINIP"],
        ["ORIGINAL", "SECONDARY", "REFORMATTED"],
    ],
)
def test_the_original_is_read_although_another_has_more_slices(
    tmp_path: Path, kind: list[str]
) -> None:
    write_series(
        tmp_path, on_slice(None, ImageType=kind, SeriesNumber=5), volume=MORE, series="1.1"
    )
    hu, _, notes = read_dicom(write_series(tmp_path), STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_OTHER_SERIES"}
    assert "originals before" in notes.details["series"]["rule"]
    assert [one["series_number"] for one in notes.details["series"]["others"]] == [5]
    assert "derived" in say_series(notes.details["series"]) or "a projection or map" in say_series(
        notes.details["series"]
    )


def test_a_projection_alone_is_read_and_told(tmp_path: Path) -> None:
    mip = on_slice(None, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])
    _, _, notes = read_dicom(write_series(tmp_path, mip), STUDY)
    assert notes.codes == {"W_DERIVED"}


def test_frames_of_an_enhanced_projection_come_after_the_original(tmp_path: Path) -> None:
    image = enhanced_of(MORE)
    image.SeriesInstanceUID = "1.1"
    for frame in image.PerFrameFunctionalGroupsSequence:
        frame.CTImageFrameTypeSequence[0].FrameType = ["DERIVED", "PRIMARY", "VOLUME", "MAX_IP"]
    (tmp_path / "mip.dcm").write_bytes(bytes_of(image))
    hu, _, notes = read_dicom(write_series(tmp_path), STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_OTHER_SERIES"}


@pytest.mark.parametrize(("directions", "plane"), [(CORONAL, "coronal"), (SAGITTAL, "sagittal")])
def test_only_axial_images_make_a_chest(tmp_path: Path, directions: list[int], plane: str) -> None:
    write_series(tmp_path, across(directions))
    for read in (read_dicom, read_dicom_grid):
        with refusal("E_NOT_CT", f"only they make a chest, but holds {plane} ones"):
            read(tmp_path, STUDY)


def test_a_coronal_series_is_no_better_than_few_axial_slices(tmp_path: Path) -> None:
    write_series(tmp_path, across(CORONAL), series="1.1")
    hu, _, _ = read_dicom(write_series(tmp_path, slices=range(9)), STUDY)
    np.testing.assert_array_equal(hu, HU[:, :, :9])


@pytest.mark.parametrize("degrees", [10, 29])
def test_oblique_stacks_are_read_as_before(tmp_path: Path, degrees: int) -> None:
    c, s = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))

    def edit(image: FileDataset, z: int) -> None:
        image.ImageOrientationPatient = [1, 0, 0, 0, c, s]
        image.ImagePositionPatient = [0, -s * 2 * z, c * 2 * z]

    hu, _, _ = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU)


@pytest.mark.parametrize("asked", ["5", "1.1", "3000566", "1.2.3000566"])
def test_a_series_is_read_by_number_or_uid(tmp_path: Path, asked: str) -> None:
    """Also by a number that is too large to be told."""
    number = 5 if asked in ("5", "1.1") else 3000566
    uid = asked if "." in asked else "1.1"
    write_series(tmp_path, on_slice(None, SeriesNumber=number), series=uid, slices=range(9))
    write_series(tmp_path)
    hu, affine, notes = read_dicom(tmp_path, STUDY, asked)
    np.testing.assert_array_equal(hu, HU[:, :, :9])
    assert notes.details["series"]["rule"] == ASKED
    shape, same_affine, same_notes = read_dicom_grid(tmp_path, STUDY, asked)
    assert (shape, same_notes) == (hu.shape, notes)
    np.testing.assert_array_equal(affine, same_affine)


def test_an_unknown_series_is_refused_with_those_there_are(tmp_path: Path) -> None:
    write_series(tmp_path, on_slice(None, SeriesNumber=5), series="1.1", slices=range(9))
    with refusal(
        "E_SERIES", r"series 4 \(24 axial slices of 2 mm\); series 5 \(9 axial slices of 2 mm\)"
    ):
        read_dicom(write_series(tmp_path), STUDY, "7")


def test_a_coronal_series_is_refused_although_it_is_asked_for(tmp_path: Path) -> None:
    write_series(tmp_path, across(CORONAL, SeriesNumber=5), series="1.1")
    with refusal("E_NOT_CT", "coronal"):
        read_dicom(write_series(tmp_path), STUDY, "5")


def phases(values: tuple[object, object], tag: str, shift_mm: float = 0.0) -> Edit:
    """Every other slice belongs to a second acquisition, `shift_mm` above the first."""

    def edit(image: FileDataset, z: int) -> None:
        on_slice(None, **{tag: values[z % 2]})(image, z)
        image.ImagePositionPatient[2] = 300 + 4 * (z // 2) + shift_mm * (z % 2)

    return edit


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", (1, 2)),
        ("AcquisitionNumber", (9, 10)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("TriggerTime", (40.5, 640.5)),
        ("EchoNumbers", (1, 2)),
        ("NominalPercentageOfCardiacPhase", (40, 75)),
        ("KVP", (80, 140)),
        ("ConvolutionKernel", ("B31f", "B70f")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MIP"])),
    ],
)
@pytest.mark.parametrize("shift_mm", [0.0, 2.0, 1.0])
def test_two_acquisitions_of_one_series_are_two_volumes(
    tmp_path: Path, tag: str, values: tuple[object, object], shift_mm: float
) -> None:
    """At the same positions, or between each other's."""
    hu, affine, notes = read_dicom(write_series(tmp_path, phases(values, tag, shift_mm)), STUDY)
    np.testing.assert_array_equal(hu, HU[:, :, ::2])
    assert affine[2, 2] == 4.0
    assert notes.codes == {"W_OTHER_SERIES"}
    assert [one["num_slices"] for one in notes.details["series"]["others"]] == [12]


@pytest.mark.parametrize(("asked", "part"), [("4", 0), ("4:1", 0), ("4:2", 1), ("1.2.3:2", 1)])
def test_each_acquisition_of_a_series_can_be_asked_for(
    tmp_path: Path, asked: str, part: int
) -> None:
    def edit(image: FileDataset, z: int) -> None:
        phases((1, 2), "AcquisitionNumber")(image, z)
        image.SeriesInstanceUID = "1.2.3"

    hu, _, notes = read_dicom(write_series(tmp_path, edit), STUDY, asked)
    np.testing.assert_array_equal(hu, HU[:, :, part::2])
    told = notes.details["series"]
    assert [told["chosen"]["part"], told["others"][0]["part"]] == [1 + part, 2 - part]
    assert f"Read was series 4:{1 + part} (12 axial slices" in say_series(told)
    with refusal("E_SERIES", r"holds series 4:1 \(12 .*\); series 4:2"):
        read_dicom(tmp_path, STUDY, "4:3")


def test_frames_of_two_phases_are_two_volumes(tmp_path: Path) -> None:
    for name in ("TemporalPositionIndex", "FrameAcquisitionNumber", "StackID"):
        image = enhanced_of(SMALL)
        for at, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
            frame.FrameContentSequence = group(
                **{name: str(1 + at % 2) if name == "StackID" else 1 + at % 2}
            )
            frame.PlanePositionSequence[0].ImagePositionPatient[2] = 300 + 4 * (at // 2)
        (tmp_path / "one.dcm").write_bytes(bytes_of(image))
        hu, _, notes = read_dicom(tmp_path, STUDY)
        np.testing.assert_array_equal(hu, HU[:, :, ::-2])
        assert notes.codes == {"W_OTHER_SERIES"}


@pytest.mark.parametrize(
    "number",
    [
        lambda z: z,
        lambda z: z // 4,
        lambda z: 24 - z,
        lambda z: (z * 7) % 24,
        lambda z: int(z > 10),
        lambda z: int(np.random.default_rng(z).integers(3)),
        lambda z: None if z == 3 else 1,
    ],
)
def test_numbers_of_slices_and_rotations_part_nothing(
    tmp_path: Path, number: Callable[[int], int | None]
) -> None:
    def edit(image: FileDataset, z: int) -> None:
        image.AcquisitionNumber = number(z)
        image.TriggerTime = str(100.5 * z % 7)

    hu, _, notes = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == set()


def test_two_passes_numbered_slice_by_slice(tmp_path: Path) -> None:
    """The first pass has the numbers 1 to 12, the second 13 to 24."""

    def edit(image: FileDataset, z: int) -> None:
        image.AcquisitionNumber = 1 + z // 2 + 12 * (z % 2)
        image.ImagePositionPatient[2] = 300 + 4 * (z // 2)

    hu, _, notes = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU[:, :, ::2])
    assert notes.codes == {"W_OTHER_SERIES"}


def test_acquisitions_without_a_number_are_refused(tmp_path: Path) -> None:
    edit = phases(("101500", "101500"), "AcquisitionTime")
    with refusal("E_DUPLICATE_SLICE"):
        read_dicom(write_series(tmp_path, edit), STUDY)


def with_own_uid(image: FileDataset, z: int) -> None:
    image.SeriesInstanceUID = f"1.2.3.{z}"


def test_a_series_per_slice_is_joined_and_told(tmp_path: Path) -> None:
    write_series(tmp_path, with_own_uid)
    hu, affine, notes = read_dicom(tmp_path, STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_SERIES_JOINED"}
    assert affine[2, 2] == 2.0
    for asked in ("4", "1.2.3.7"):
        np.testing.assert_array_equal(read_dicom(tmp_path, STUDY, asked)[0], HU)


def test_a_series_and_a_number_per_slice_are_joined(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        with_own_uid(image, z)
        image.SeriesNumber = 100 + z

    hu, _, notes = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_SERIES_JOINED"}


def test_what_does_not_make_one_even_stack_is_refused(tmp_path: Path) -> None:
    with refusal("E_UNEVEN_SPACING", "each slice is a series of its own"):
        read_dicom(write_series(tmp_path, with_own_uid, slices=[0, 1, 2, 3, 6, 7]), STUDY)


def test_slices_of_other_studies_and_kernels_are_not_joined(tmp_path: Path) -> None:
    def edit(image: FileDataset, z: int) -> None:
        with_own_uid(image, z)
        image.StudyInstanceUID = "1.5" if z < 20 else "1.6"
        image.ConvolutionKernel = "B31f" if z < 15 else "B70f"

    hu, _, notes = read_dicom(write_series(tmp_path, edit), STUDY)
    np.testing.assert_array_equal(hu, HU[:, :, :15])
    assert [one["num_slices"] for one in notes.details["series"]["others"]] == [5, 4]


def test_one_image_of_a_series_beside_is_left_aside(tmp_path: Path) -> None:
    """A monitoring image has a series of its own; it is no slice of the scan."""
    image = slice_of(0, SMALL, "1.9")
    image.SliceThickness = 10
    (tmp_path / "one.dcm").write_bytes(bytes_of(image))
    hu, _, notes = read_dicom(write_series(tmp_path), STUDY)
    np.testing.assert_array_equal(hu, HU)
    assert notes.codes == {"W_OTHER_SERIES"}
