"""An export of an archive: three patients, whose names lie everywhere in it."""

from pathlib import Path

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedSRStorage

from ctscribe.scan.volume import CTVolume
from tests.dicom import Edit, blank, bytes_of, slice_of
from tests.scans import coarse_chest

NAMES = ("PLANTED^ANNA", "=PLANTED(1)", "\x1b[31mPLANTED\x1b[0m")
"""One a spreadsheet would run, one a terminal would obey."""
STUDIES = ("1.3.9999.1", "1.3.9999.2", "1.3.9999.3")
PLANTED = ("PLANTED", "MRN77", "ACC88", "19010203", "1.3.9999.")
"""What no output may repeat."""


def write_export(folder: Path) -> Path:
    """A folder of three patients, all that an archive puts beside the chest, and one cut file.

    The first has a scout, a soft and a sharp kernel, a coronal reformat and a report object; the
    second lies in the same folder as the third, and all their files have plain numbers; the third
    lacks a slice because its file is cut.
    """
    chest = coarse_chest()
    first = folder / f"{NAMES[0]}-MRN770" / "19010203"
    _write(first / "SCOUT", chest, 0, 1, _scout, slices=[0])
    _write(first / "SHARP", chest, 0, 2, _kernel("Br64d", 3))
    _write(first / "SOFT", chest, 0, 3, _kernel("Br40d", 3))
    _write(first / "COR", chest, 0, 4, _coronal)
    (first / "SR").mkdir()
    (first / "SR/1.dcm").write_bytes(bytes_of(_named(_report(), 0)))
    flat = folder / "FLAT"
    _write(flat, chest, 1, 1, _kernel("FC03"))
    _write(flat, chest, 2, 1, _kernel("PLANTED"), start=100)
    (flat / "PLANTED.dcm").write_bytes((flat / "00000007").read_bytes()[:300])
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "autorun.inf").write_text("PLANTED")
    return folder


def _write(
    folder: Path,
    volume: CTVolume,
    patient: int,
    number: int,
    edit: Edit,
    *,
    slices: list[int] | None = None,
    start: int = 0,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for z in range(volume.shape_xyz[2]) if slices is None else slices:
        image = slice_of(z, volume, f"{STUDIES[patient]}.{number}")
        image.SeriesNumber = number
        edit(_named(image, patient), z)
        (folder / f"{start + z:08}").write_bytes(bytes_of(image))


def _named(image: FileDataset, patient: int) -> FileDataset:
    image.PatientID, image.PatientName = f"MRN77{patient}", NAMES[patient]
    image.AccessionNumber, image.StudyDate = f"ACC88{patient}", "19010203"
    image.StudyInstanceUID = STUDIES[patient]
    image.FrameOfReferenceUID = f"{STUDIES[patient]}.9"
    return image


def _kernel(*values: object) -> Edit:
    def edit(image: FileDataset, z: int) -> None:
        image.ConvolutionKernel = [*map(str, values)]

    return edit


def _scout(image: FileDataset, z: int) -> None:
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def _coronal(image: FileDataset, z: int) -> None:
    image.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]
    image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    image.ImagePositionPatient = [0, 6 * z, 0]


def _report() -> FileDataset:
    report = blank(EnhancedSRStorage, "1.3.9999.9", "report")
    for element in ("SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(report, element)
    report.Modality = "SR"
    report.ContentSequence = [Dataset()]
    report.ContentSequence[0].TextValue = "PLANTED has a nodule."
    return report
