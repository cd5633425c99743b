"""DICOM files one by one: headers, then pixels; nothing of them is quoted anywhere."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pydicom
from jaxtyping import Float64, Integer
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import CTImageStorage

from ctscribe.errors import CtscribeError

Numbers = Float64[np.ndarray, "_"]
_TAGS = [
    "SOPClassUID",
    "PatientID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImageType",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
]
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file so called that is no DICOM was one; others are licences, thumbnails and the like."""
_UNREADABLE = (
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    BytesLengthException,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged files; its messages may quote them, so they are not passed on."""


@final
@dataclass(frozen=True, slots=True)
class Header:
    """What of one file's header matters here; None where it is missing or no such number.

    Attributes:
        path: The file.
        patient: Only ever compared, never shown.
        modality: ``CT`` and so on.
        series: Its UID.
        series_number: For choosing among series.
        localizer: Whether it is a scout view.
        thickness_mm: For choosing among series.
        size: Rows and columns.
        spacing_mm: Between rows, between columns.
        position_lps_mm: Centre of the first voxel.
        orientation: Direction of the rows, then of the columns, six cosines.
    """

    path: Path
    patient: str
    modality: str
    series: str
    series_number: float
    localizer: bool
    thickness_mm: float
    size: Numbers | None
    spacing_mm: Numbers | None
    position_lps_mm: Numbers | None
    orientation: Numbers | None


@final
@dataclass(frozen=True, slots=True)
class Pixels:
    """Stored values of one slice, and how they become Hounsfield units."""

    stored: Integer[np.ndarray, "rows columns"]
    slope: float
    intercept: float

    def same_as(self, other: "Pixels") -> bool:
        """Whether two slices show the same."""
        scaling = (self.slope, self.intercept) == (other.slope, other.intercept)
        return scaling and np.array_equal(self.stored, other.stored)


def read_headers(folder: Path, study: str) -> tuple[list[Header], tuple[str, ...]]:
    """Headers of all DICOM files below a folder, in the order of their names.

    Returns:
        Headers, and ``W_OTHER_FILES`` when some files are no DICOM.

    Raises:
        CtscribeError: ``E_NOT_DICOM`` when there is none, ``E_TRUNCATED`` when one is damaged.
    """
    headers: list[Header] = []
    others = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "DICOMDIR":
            continue
        try:
            with _readable(study):
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
                _check_complete(header)
                headers.append(_parse(path, header))
        except InvalidDicomError as error:
            if path.suffix.lower() in _DICOM_SUFFIXES or path.stat().st_size == 0:
                raise _damaged(study) from error
            others += 1
    if not headers:
        raise CtscribeError(
            "E_NOT_DICOM",
            f"{study} must be a folder of DICOM files, but none was found in it; "
            "give the folder of the series or a NIfTI file",
        )
    return headers, ("W_OTHER_FILES",) if others else ()


def _check_complete(header: Dataset) -> None:
    """A file cut within its header still parses; without these it would be passed over."""
    needed = ["SOPClassUID", "Modality", "SeriesInstanceUID"]
    if str(header.get("SOPClassUID", "")).startswith(CTImageStorage):
        needed += ["Rows", "Columns"]
    if any(tag not in header for tag in needed):
        raise EOFError


def _parse(path: Path, header: Dataset) -> Header:
    rows, columns = _numbers(header, "Rows", 1), _numbers(header, "Columns", 1)
    spacing = _numbers(header, "PixelSpacing", 2)
    number, thickness = _numbers(header, "SeriesNumber", 1), _numbers(header, "SliceThickness", 1)
    return Header(
        path=path,
        patient=str(header.get("PatientID", "")),
        modality=str(header.Modality),
        series=str(header.SeriesInstanceUID),
        series_number=np.inf if number is None else float(number[0]),
        localizer="LOCALIZER" in (header.get("ImageType") or ()),
        thickness_mm=np.inf if thickness is None else float(thickness[0]),
        size=None if rows is None or columns is None else np.concatenate([rows, columns]),
        spacing_mm=None if spacing is None or spacing.min() <= 0 else spacing,
        position_lps_mm=_numbers(header, "ImagePositionPatient", 3),
        orientation=_numbers(header, "ImageOrientationPatient", 6),
    )


def _numbers(header: Dataset, tag: str, count: int) -> Numbers | None:
    try:
        values = np.atleast_1d(np.array(header.get(tag), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def read_pixels(path: Path, study: str) -> Pixels:
    """Stored values of one slice.

    Raises:
        CtscribeError: ``E_NO_RESCALE``, ``E_DATATYPE``, ``E_MULTIFRAME``, ``E_CODEC`` or
            ``E_TRUNCATED``.
    """
    with _readable(study):
        image = pydicom.dcmread(path)
        if image.get("RescaleSlope") is None or image.get("RescaleIntercept") is None:
            raise CtscribeError(
                "E_NO_RESCALE",
                f"{study} must have a rescale slope and intercept in each slice, but one slice "
                "lacks them; export the original CT images",
            )
        if int(image.get("NumberOfFrames") or 1) > 1:
            raise CtscribeError(
                "E_MULTIFRAME",
                f"{study} must have one slice per file, but one file holds many; "
                "export it as classic CT images",
            )
        if int(image.SamplesPerPixel) != 1 or int(image.BitsAllocated) != 16:
            raise CtscribeError(
                "E_DATATYPE",
                f"{study} must hold grey values of 16 bits, but one image does not; "
                "export the CT itself, not a rendering",
            )
        stored = _decode(image, study)
        return Pixels(stored, float(image.RescaleSlope), float(image.RescaleIntercept))


def _decode(image: FileDataset, study: str) -> np.ndarray:
    syntax = image.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        try:
            return image.pixel_array
        except RuntimeError as error:
            raise CtscribeError(
                "E_CODEC",
                f"{study} must be compressed in a way that can be read here, but {syntax.name} "
                "cannot; run pip install pylibjpeg[all] or export it uncompressed",
            ) from error
    rows, columns = int(image.Rows), int(image.Columns)
    sign = "i2" if image.PixelRepresentation else "u2"
    order = "<" if syntax.is_little_endian else ">"
    pixels = np.frombuffer(image.PixelData, dtype=np.dtype(order + sign), count=rows * columns)
    return pixels.reshape(rows, columns)


@contextmanager
def _readable(study: str) -> Iterator[None]:
    """Turns damage into a sentence and keeps pydicom's warnings, which quote values, silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InvalidDicomError:
            raise
        except _UNREADABLE as error:
            raise _damaged(study) from error
        except OSError as error:
            raise CtscribeError(
                "E_READ",
                f"{study} must be readable, but {error.strerror or 'a file is not'}; correct it",
            ) from error


def _damaged(study: str) -> CtscribeError:
    return CtscribeError(
        "E_TRUNCATED",
        f"{study} must consist of complete DICOM files, but one is cut or damaged; "
        "copy or export the series again",
    )
