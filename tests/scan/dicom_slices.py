"""A small series: in single files, in a zip archive and in one enhanced file."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedCTImageStorage

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import read_dicom, read_dicom_grid
from ctscribe.scan.dicom_sources import is_dicom
from ctscribe.scan.volume import CTVolume
from tests import dicom

STUDY = "scan-7"
ROWS, COLUMNS, DEPTH = 6, 5, 24
SHARED = [HealthCheck.function_scoped_fixture]


def stored(z: int) -> np.ndarray:
    return np.random.default_rng(z).integers(0, 3000, (ROWS, COLUMNS), dtype=np.uint16)


HU = np.stack([stored(z).T.astype(np.int16) - 1024 for z in range(DEPTH)], axis=2)
"""As it is read."""
AFFINE = np.diag([0.7, 0.8, 2.0, 1.0])
AFFINE[:3, 3] = (100 - 0.7 * (COLUMNS - 1), 90 - 0.8 * (ROWS - 1), 300)
SMALL = CTVolume(HU[::-1, ::-1], AFFINE)
write_series = partial(dicom.write_series, volume=SMALL)


def make_slice(z: int, series: str = "1.2.3") -> FileDataset:
    return dicom.slice_of(z, SMALL, series)


def refused(folder: Path) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        read_dicom(folder, STUDY)
    sentence = caught.value.sentence
    assert sentence.startswith(f"{STUDY} must ")
    assert "PLANTED" not in sentence
    assert "1901" not in sentence
    return caught.value


def group(**tags: object) -> list[Dataset]:
    item = Dataset()
    for tag, value in tags.items():
        setattr(item, tag, value)
    return [item]


def enhanced() -> FileDataset:
    """Frames stored from the head down, what they share stated once."""
    image = dicom.blank(EnhancedCTImageStorage, "1.2.3", "all")
    image.Rows, image.Columns, image.NumberOfFrames = ROWS, COLUMNS, DEPTH
    image.SharedFunctionalGroupsSequence = group(
        PixelMeasuresSequence=group(PixelSpacing=[0.8, 0.7], SliceThickness=2.0),
        PlaneOrientationSequence=group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        PixelValueTransformationSequence=group(RescaleSlope=1, RescaleIntercept=-1024),
    )
    order = range(DEPTH - 1, -1, -1)
    image.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence=group(ImagePositionPatient=[-100.0, -90.0, 300.0 + 2 * z]),
            CTImageFrameTypeSequence=group(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
        )[0]
        for z in order
    ]
    image.PixelData = b"".join(stored(z).tobytes() for z in order)
    return image


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def series() -> dict[str, bytes]:
    return {f"study/{(z * 5) % DEPTH:02}.dcm": dicom.bytes_of(make_slice(z)) for z in range(DEPTH)}


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def check(path: Path, *warnings: str) -> None:
    assert is_dicom(path)
    hu, affine, told = read_dicom(path, STUDY)
    np.testing.assert_array_equal(hu, HU)
    np.testing.assert_allclose(np.diag(affine), (-0.7, -0.8, 2.0, 1.0))
    np.testing.assert_allclose(affine[:3, 3], (100.0, 90.0, 300.0))
    assert told.codes == set(warnings)
    shape, same_affine, same_told = read_dicom_grid(path, STUDY)
    assert shape == hu.shape
    np.testing.assert_array_equal(affine, same_affine)
    assert same_told == told


def with_field(content: bytes, signature: bytes, at: int, value: bytes) -> bytes:
    place = content.index(signature) + at
    return content[:place] + value + content[place + len(value) :]
