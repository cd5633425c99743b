"""A small series: in single files, in a zip archive and in one enhanced file."""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck
from pydicom.dataset import FileDataset

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


def enhanced() -> FileDataset:
    return dicom.enhanced_of(SMALL)


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
