"""Rows 31 to 37: what a DICOM folder holds, and which of it is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import EncapsulatedPDFStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from ctscribe.scan.volume import CTVolume, Notes
from tests.catalogue.case import Build, Case
from tests.dicom import Edit, bytes_of, on_slice, slice_of, write_series
from tests.scans import CHEST

DEPTH = CHEST.shape_xyz[2]
Put = Callable[[Path], None]


def series(edit: Edit | None = None) -> Build:
    """The chest's series, each slice edited."""
    return lambda folder: write_series(folder / "series", edit)


def without(*missing: int) -> Build:
    """The series but for some slices."""
    kept = [z for z in range(DEPTH) if z not in missing]
    return lambda folder: write_series(folder / "series", slices=kept)


def beside(*others: Put) -> Build:
    """The series, and something else in its folder."""

    def build(folder: Path) -> Path:
        write_series(folder / "series")
        for put in others:
            put(folder / "series")
        return folder / "series"

    return build


def alone(put: Put) -> Build:
    """A folder that holds something else than the series."""

    def build(folder: Path) -> Path:
        put(folder)
        return folder

    return build


def again(folder: Path) -> None:
    (folder / "again.dcm").write_bytes(bytes_of(slice_of(9)))


def other_at_same_place(folder: Path) -> None:
    image = slice_of(9)
    image.PixelData = slice_of(10).PixelData
    (folder / "phase 2.dcm").write_bytes(bytes_of(image))


def slab(folder: Path) -> None:
    """Another reconstruction of fewer, thicker slices."""
    write_series(folder, on_slice(None, SeriesNumber=2), series="1.2.9", slices=range(0, 24, 2))


MIP = on_slice(None, SeriesNumber=6, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])


def projection(folder: Path) -> None:
    """A MIP of more slices than the series has."""

    def closer(image: FileDataset, z: int) -> None:
        MIP(image, z)
        image.ImagePositionPatient[2] = 700 + 2 * z

    twice = CTVolume(np.repeat(CHEST.hu, 2, axis=2), CHEST.affine)
    write_series(folder, closer, series="1.2.66", volume=twice)


def phase(folder: Path) -> None:
    """A later acquisition under the same SeriesInstanceUID, at the same positions."""
    for z in range(DEPTH):
        image = slice_of(z)
        image.AcquisitionNumber, image.PixelData = 2, slice_of(DEPTH - 1 - z).PixelData
        (folder / f"phase {z}.dcm").write_bytes(bytes_of(image))


def coronal(folder: Path) -> None:
    """A reformat in coronal planes with more slices than the axial series has."""
    for y in range(40):
        image = slice_of(0, series="1.2.5")
        image.SeriesNumber, image.SliceThickness = 5, 2.0
        image.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        image.ImagePositionPatient = [-168.0, -134.0 + 2 * y, 800.0]
        (folder / f"coronal {y}.dcm").write_bytes(bytes_of(image))


def marked_scout(folder: Path) -> None:
    image = slice_of(0, series="1.2.7")
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    (folder / "scout.dcm").write_bytes(bytes_of(image))


def scout_within(folder: Path) -> None:
    """Unmarked, in the same series, across its slices."""
    image = slice_of(0)
    image.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    image.Rows, image.Columns = image.Columns, image.Rows
    (folder / "scout within.dcm").write_bytes(bytes_of(image))


def dose_report(folder: Path) -> None:
    image = slice_of(0, series="1.2.8")
    image.Modality = "SR"
    del image.PixelData
    (folder / "dose.dcm").write_bytes(bytes_of(image))


def document(folder: Path) -> None:
    """Of a class that need not have a modality."""
    image = slice_of(0, series="1.2.4")
    image.SOPClassUID = EncapsulatedPDFStorage
    for tag in ("Modality", "Rows", "Columns", "PixelData"):
        delattr(image, tag)
    (folder / "document.dcm").write_bytes(bytes_of(image))


def screenshots(folder: Path) -> None:
    """Rendered views in colour, more of them than slices, called CT."""
    for index in range(60):
        image = slice_of(0, series="1.2.6")
        image.SamplesPerPixel, image.PhotometricInterpretation = 3, "RGB"
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image.PlanarConfiguration = 0
        image.Rows = image.Columns = 8
        image.PixelData = bytes(8 * 8 * 3)
        del image.ImagePositionPatient, image.ImageOrientationPatient
        (folder / f"view {index}.dcm").write_bytes(bytes_of(image))


def film(folder: Path) -> None:
    image = slice_of(0, series="1.2.60")
    image.SOPClassUID, image.NumberOfFrames = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        40,
    )
    (folder / "film.dcm").write_bytes(bytes_of(image))


def licence(folder: Path) -> None:
    (folder / "LICENSE.txt").write_text("words")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")


def names_others(*numbers: int, of_parts: bool = False) -> Callable[[CTVolume, Notes], None]:
    """The chest was chosen, perhaps the first part of its series; the others have these numbers."""

    def check(volume: CTVolume, notes: Notes) -> None:
        np.testing.assert_array_equal(volume.hu, CHEST.hu)
        told = notes.details["series"]
        expected = {"series_number": 4, "num_slices": 24, "plane": "axial", "thickness_mm": 5.0}
        assert told["chosen"] == expected | ({"part": 1} if of_parts else {})
        assert [one["series_number"] for one in told["others"]] == [*numbers]

    return check


def shorter_by(first: int, last: int) -> Callable[[CTVolume, Notes], None]:
    def check(volume: CTVolume, notes: Notes) -> None:
        np.testing.assert_array_equal(volume.hu, CHEST.hu[:, :, first : DEPTH - last])
        assert volume.spacing_mm == (2.0, 2.0, 5.0)
        assert volume.affine[2, 3] == 700 + 5 * first

    return check


def with_own_scaling(image: FileDataset, z: int) -> None:
    stored = np.frombuffer(image.PixelData, np.uint16) + np.uint16(z)
    image.PixelData, image.RescaleIntercept = stored.tobytes(), -1024 - z


def numbered_backwards(image: FileDataset, z: int) -> None:
    image.InstanceNumber = DEPTH - z


def lying(rows: tuple[int, ...], columns: tuple[int, ...]) -> Edit:
    """The patient on the table in another position: pixels and tags turned alike.

    Rows and columns are the directions of the image's axes in the patient (LPS); the chest's
    slices run left and posterior.
    """

    def edit(image: FileDataset, z: int) -> None:
        plane = np.frombuffer(image.PixelData, np.uint16).reshape(image.Rows, image.Columns)
        x, y, height = (float(mm) for mm in image.ImagePositionPatient)
        if rows[0] == 0:  # the image's rows run along the patient's y
            plane = plane.T
            image.Rows, image.Columns = image.Columns, image.Rows
        if -1 in rows:
            plane = plane[:, ::-1]
        if -1 in columns:
            plane = plane[::-1]
        if -1 in (rows[0], columns[0]):
            x += 2.0 * (CHEST.shape_xyz[0] - 1)
        if -1 in (rows[1], columns[1]):
            y += 2.0 * (CHEST.shape_xyz[1] - 1)
        image.PixelData = np.ascontiguousarray(plane).tobytes()
        image.ImageOrientationPatient = [*rows, *columns]
        image.ImagePositionPatient = [x, y, height]

    return edit


LYING = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, -1, 0), (1, 0, 0)),
    "HFDL": ((0, 1, 0), (-1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, 1, 0), (1, 0, 0)),
    "FFDL": ((0, -1, 0), (-1, 0, 0)),
}
"""By PatientPosition: head or feet first; supine, prone, right or left side down."""
OTHER = "W_OTHER_SERIES"
CASES = [
    Case(31, "one missing", without(11), "E_GAP", "about 1 are missing"),
    Case(31, "six missing", without(3, 4, 5, 6, 7, 15), "E_GAP", "about 6 are missing"),
    Case(31, "ends missing", without(0, 23), check=shorter_by(1, 1)),
    Case(31, "one twice", beside(again), "W_DUPLICATE_SLICE"),
    Case(31, "two at one place", beside(other_at_same_place), "E_DUPLICATE_SLICE", "per position"),
    Case(
        31,
        "uneven",
        series(
            lambda image, z: setattr(
                image, "ImagePositionPatient", [-168, -134, 700 + 5 * z + (z > 9)]
            )
        ),
        "E_UNEVEN_SPACING",
        "5 to 6 mm apart",
    ),
    Case(32, "slab", beside(slab), OTHER, check=names_others(2)),
    Case(32, "coronal", beside(coronal), OTHER, check=names_others(5)),
    Case(32, "projection", beside(projection), OTHER, check=names_others(6)),
    Case(32, "acquisitions", beside(phase), OTHER, check=names_others(4, of_parts=True)),
    Case(32, "asked for", beside(slab), OTHER, options={"series": "4"}, check=names_others(2)),
    Case(
        32,
        "asked for in vain",
        beside(slab),
        "E_SERIES",
        "holds series 4 (24 axial slices",
        options={"series": "9"},
    ),
    Case(32, "scout", beside(marked_scout)),
    Case(32, "scout within", beside(scout_within), OTHER, check=names_others(4, of_parts=True)),
    Case(32, "dose report", beside(dose_report)),
    Case(32, "document", beside(document)),
    Case(32, "screenshots", beside(screenshots), OTHER, check=names_others(4)),
    Case(32, "film", beside(film)),
    Case(32, "other files", beside(licence), "W_OTHER_FILES"),
    Case(
        32,
        "all",
        beside(slab, coronal, marked_scout, dose_report, film, licence),
        f"{OTHER} W_OTHER_FILES",
        check=names_others(5, 2),
    ),
    Case(
        32,
        "two pixel spacings",
        series(on_slice(9, PixelSpacing=[1.9, 1.9])),
        "E_MIXED_GEOMETRY",
        "one PixelSpacing",
    ),
    Case(32, "two sizes", series(on_slice(9, Rows=64)), "E_MIXED_GEOMETRY", "one image size"),
    Case(
        33, "two", series(on_slice(9, PatientID="P2")), "E_MIXED_PATIENT", "images of one patient"
    ),
    Case(
        33,
        "unnumbered, two names",
        series(lambda image, z: on_slice(None, PatientID="", PatientName=f"Doe^{z % 2}")(image, z)),
        "E_MIXED_PATIENT",
        "several",
    ),
    Case(
        33,
        "one number, two spellings",
        series(lambda image, z: on_slice(None, PatientName=f"Doe^Jane{'^' * (z % 2)}")(image, z)),
    ),
    Case(
        34, "no slope", series(on_slice(None, RescaleSlope=None)), "E_NO_RESCALE", "in each slice"
    ),
    Case(34, "one without", series(on_slice(9, RescaleIntercept=None)), "E_NO_RESCALE", "slice"),
    Case(34, "slope 0", series(on_slice(None, RescaleSlope=0)), "E_NO_RESCALE", "a rescale slope"),
    Case(34, "one each", series(with_own_scaling)),
    Case(
        35,
        "no position",
        series(on_slice(None, ImagePositionPatient=None)),
        "E_DICOM_TAG",
        "usable ImagePositionPatient",
    ),
    Case(
        35, "one without", series(on_slice(9, ImagePositionPatient=None)), "E_DICOM_TAG", "Position"
    ),
    Case(
        35,
        "no direction",
        series(on_slice(None, ImageOrientationPatient=None)),
        "E_DICOM_TAG",
        "usable ImageOrientationPatient",
    ),
    Case(
        35,
        "no real direction",
        series(on_slice(9, ImageOrientationPatient=[0] * 6)),
        "E_DICOM_TAG",
        "usable ImageOrientationPatient",
    ),
    Case(35, "pixels of 0", series(on_slice(None, PixelSpacing=[0, 0])), "E_DICOM_TAG", "PixelSp"),
    Case(
        35, "pixels of none", series(on_slice(9, PixelSpacing=None)), "E_DICOM_TAG", "PixelSpacing"
    ),
    Case(
        36,
        "a series per slice",
        series(lambda image, z: on_slice(None, SeriesInstanceUID=f"1.7.{z}")(image, z)),
        "W_SERIES_JOINED",
    ),
    Case(36, "numbered backwards", series(numbered_backwards)),
    *(Case(36, position, series(lying(*axes))) for position, axes in LYING.items()),
    Case(37, "MR", series(on_slice(None, Modality="MR")), "E_NOT_CT", "(modalities: MR)"),
    Case(37, "unheard of", series(on_slice(None, Modality="JANE")), "E_NOT_CT", "(modalities: ?)"),
    Case(
        37,
        "coronal alone",
        alone(coronal),
        "E_NOT_CT",
        "holds coronal ones",
    ),
    Case(37, "projection alone", series(MIP), "W_DERIVED"),
    Case(37, "head", series(on_slice(None, BodyPartExamined="HEAD")), "W_BODY_PART"),
    Case(37, "chest", series(on_slice(None, BodyPartExamined="CHEST"))),
]
