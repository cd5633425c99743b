"""A small series, classic and enhanced, with a patient's name that no error may tell."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom

STUDY = "scan-7"
ROWS, COLUMNS, DEPTH = 6, 5, 8
SECRET = "PLANTED^NAME"
SHARED = [HealthCheck.function_scoped_fixture]
Edit = Callable[[FileDataset, int], None]


def stored(z: int) -> np.ndarray:
    return np.random.default_rng(z).integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)


def blank(sop_class: UID, series: str, name: str) -> FileDataset:
    """An image of a series without pixels and place; the same name gives the same identifier."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.PatientName, image.PatientBirthDate = "PLANTED-ID", SECRET, "19010203"
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", series, 4
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.Rows, image.Columns = ROWS, COLUMNS
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    return image


def make_slice(z: int, series: str = "1.2.3") -> FileDataset:
    """A classic image of one slice."""
    image = blank(CTImageStorage, series, str(z))
    image.InstanceNumber = 100 - z
    image.PixelSpacing, image.SliceThickness = [0.8, 0.7], 2.0
    image.ImagePositionPatient = [-100.0, -90.0, 300.0 + 2 * z]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
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


def expected_hu(depth: int = DEPTH) -> np.ndarray:
    return np.stack([stored(z).T.astype(np.int16) - 1024 for z in range(depth)], axis=2)
