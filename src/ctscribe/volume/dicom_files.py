"""DICOM headers, one per slice; nothing of them is quoted anywhere."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pydicom
from jaxtyping import Float64
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ctscribe.errors import CtscribeError
from ctscribe.volume.dicom_sources import DicomFile

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
    "RescaleSlope",
    "RescaleIntercept",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "CTImageFrameTypeSequence": ("FrameType",),
}
"""Where an enhanced CT image keeps what a classic one has at its top (PS3.3 A.38)."""
_CT_CLASSES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
_MAX_FRAMES = 10_000
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
    InvalidDicomError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on damaged files; its messages may quote them, so they are not passed on."""


@final
@dataclass(frozen=True, slots=True)
class Header:
    """What of one slice's header matters here; None where it is missing or no such number.

    Attributes:
        file: Where the slice is stored.
        frame: Its place in the file, from 0.
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
        rescale: Slope and intercept.
    """

    file: DicomFile
    frame: int
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
    rescale: Numbers | None


def read_headers(files: list[DicomFile], study: str) -> tuple[list[Header], tuple[str, ...]]:
    """Headers of all slices in DICOM files, in their order.

    Returns:
        Headers, and ``W_OTHER_FILES`` when some files are no DICOM.

    Raises:
        CtscribeError: ``E_NOT_DICOM`` when there is none, ``E_TRUNCATED`` when one is damaged,
            ``E_MULTIFRAME``, ``E_CODEC`` or ``E_READ``.
    """
    headers: list[Header] = []
    others = 0
    for file in files:
        image = read_dataset(file, study, pixels=False)
        if image is None:
            others += 1
            continue
        with readable(study):
            _check_complete(image)
            headers.extend(_slices(file, image, study))
    if not headers:
        raise CtscribeError(
            "E_NOT_DICOM",
            f"{study} must hold DICOM files, but none was found in it; "
            "give the folder of the series or a NIfTI file",
        )
    return headers, ("W_OTHER_FILES",) if others else ()


def read_dataset(file: DicomFile, study: str, *, pixels: bool) -> FileDataset | None:
    """A whole file or its header; None for a file that neither is DICOM nor claims to be."""
    with readable(study), file.open() as stream:
        start = stream.read(2048)
        if start[128:132] != b"DICM":
            if file.claimed:
                raise EOFError
            return None
        if str(DeflatedExplicitVRLittleEndian).encode() in start:
            raise CtscribeError(
                "E_CODEC",
                f"{study} must not be deflated as a whole, because such a file can inflate "
                "without bound; export it uncompressed",
            )
        stream.seek(0)
        if pixels:
            return pydicom.dcmread(stream)
        return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS))


def _check_complete(header: Dataset) -> None:
    """A file cut within its header still parses; without these it would be passed over."""
    needed = ["SOPClassUID", "Modality", "SeriesInstanceUID"]
    if header.get("SOPClassUID") in _CT_CLASSES:
        needed += ["Rows", "Columns"]
    if any(tag not in header for tag in needed):
        raise EOFError


def _slices(file: DicomFile, image: Dataset, study: str) -> Iterator[Header]:
    """The slices of a classic or an enhanced CT image."""
    count = int(image.get("NumberOfFrames") or 1)
    per_frame = image.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if count > 1 and image.SOPClassUID in _CT_CLASSES:
            raise CtscribeError(
                "E_MULTIFRAME",
                f"{study} must say where each slice lies, but one file holds many without; "
                "export it as classic or enhanced CT images",
            )
        if count > 1:
            image.Modality = "OT"  # a film of screenshots, whatever scanner it came from
        yield _parse(file, 0, image, image)
        return
    if len(per_frame) != count or count > _MAX_FRAMES:
        raise EOFError
    shared = image.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for frame, own in enumerate(per_frame):
        place = Dataset()
        for group, tags in _GROUPS.items():
            found = own.get(group) or shared[0].get(group) or [Dataset()]
            for tag in tags:
                if tag in found[0]:
                    place[tag] = found[0][tag]
        yield _parse(file, frame, image, place)


def _parse(file: DicomFile, frame: int, image: Dataset, place: Dataset) -> Header:
    rows, columns = _numbers(image, "Rows", 1), _numbers(image, "Columns", 1)
    spacing = _numbers(place, "PixelSpacing", 2)
    number, thickness = _numbers(image, "SeriesNumber", 1), _numbers(place, "SliceThickness", 1)
    slope, intercept = _numbers(place, "RescaleSlope", 1), _numbers(place, "RescaleIntercept", 1)
    return Header(
        file=file,
        frame=frame,
        patient=str(image.get("PatientID", "")),
        modality=str(image.Modality),
        series=str(image.SeriesInstanceUID),
        series_number=np.inf if number is None else float(number[0]),
        localizer=_is_localizer(image.get("ImageType")) or _is_localizer(place.get("FrameType")),
        thickness_mm=np.inf if thickness is None else float(thickness[0]),
        size=_together(rows, columns),
        spacing_mm=None if spacing is None or spacing.min() <= 0 else spacing,
        position_lps_mm=_numbers(place, "ImagePositionPatient", 3),
        orientation=_numbers(place, "ImageOrientationPatient", 6),
        rescale=_together(slope, intercept),
    )


def _is_localizer(kinds: Any) -> bool:  # noqa: ANN401 - one string, several or none
    return "LOCALIZER" in ([kinds] if isinstance(kinds, str) else kinds or ())


def _together(first: Numbers | None, second: Numbers | None) -> Numbers | None:
    return None if first is None or second is None else np.concatenate([first, second])


def _numbers(header: Dataset, tag: str, count: int) -> Numbers | None:
    try:
        values: np.ndarray[Any, Any] = np.atleast_1d(np.array(header.get(tag), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


@contextmanager
def readable(study: str) -> Iterator[None]:
    """Turns damage into a sentence; silences pydicom's warnings and log, which quote values."""
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        except _UNREADABLE as error:
            raise CtscribeError(
                "E_TRUNCATED",
                f"{study} must consist of complete DICOM files, but one is cut or damaged; "
                "copy or export the series again",
            ) from error
        except OSError as error:
            raise CtscribeError(
                "E_READ",
                f"{study} must be readable, but {error.strerror or 'a file is not'}; correct it",
            ) from error
        finally:
            log.setLevel(level)
