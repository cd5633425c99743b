"""DICOM files → one header per slice, with the elements for choice, geometry and intensity.

In: `DicomFile`s. Out: `SliceHeader`s and notes. Errors quote no value of a header, since it may
identify a patient.
"""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
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
    MediaStorageDirectoryStorage,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import not_readable
from ctscribe.scan.dicom_sources import DicomFile, begins_bare
from ctscribe.scan.volume import Notes, note_if

Numbers = Float64[np.ndarray, "_"]
TAGS = [
    "SOPClassUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "AccessionNumber",
    "Modality",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "EchoNumbers",
    "KVP",
    "ConvolutionKernel",
    "ImageType",
    "SamplesPerPixel",
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
"""The only elements that are read from a header."""
_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "CTReconstructionSequence": ("ConvolutionKernel",),
    "CTXRayDetailsSequence": ("KVP",),
    "FrameContentSequence": ("TemporalPositionIndex", "FrameAcquisitionNumber", "StackID"),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "CardiacSynchronizationSequence": (
        "NominalPercentageOfCardiacPhase",
        "NominalCardiacTriggerDelayTime",
    ),
    "UnassignedPerFrameConvertedAttributesSequence": (
        "AcquisitionNumber",
        "TemporalPositionIdentifier",
        "TriggerTime",
        "EchoNumbers",
    ),
}
"""Functional groups in which an enhanced CT image keeps what a classic one has at its top level
(PS3.3 A.38)."""
_PARTING = (
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TemporalPositionTimeOffset"),
    *("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime"),
    *("AcquisitionNumber", "FrameAcquisitionNumber", "StackID", "TriggerTime", "EchoNumbers"),
    *("KVP", "ConvolutionKernel", "SliceThickness", "PixelSpacing", "SeriesNumber"),
)
"""Elements by which `dicom_stacks` parts a series into acquisitions, most reliable first."""
_PROJECTIONS = frozenset("MIP MINIP MAXIP IP MAXIMUM MINIMUM".split())  # noqa: SIM905
_COMPUTED = _PROJECTIONS | {"IODINE", "SUBTRACTION", "RHO", "ZEFF", "EFFZ", "RCBF", "RCBV", "MTT"}
"""Words in ImageType of images whose values are not CT densities: projections and other maps."""
_REFORMATS = frozenset("REFORMATTED MPR RESAMPLED AVERAGE MEAN".split())  # noqa: SIM905
_CT_CLASSES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
_MAX_FRAMES = 10_000
_MAX_SERIES_NUMBER = 99_999
"""A larger one may be a date or a record number, which could identify a patient."""
_NOT_THE_CHEST = frozenset(
    """ABDOMEN ABDOMENPELVIS ANKLE ARM BRAIN ELBOW EXTREMITY EYE FACE FEMUR FOOT HAND HEAD HIP
    HUMERUS JAW KNEE LEG LSPINE NECK ORBIT PELVIS SINUS SKULL TEMPORALBONE WRIST""".split()  # noqa: SIM905 - one string reads as the table
)
"""Values of BodyPartExamined (PS3.16 annex L) that rule out a chest; many others do not."""
_PROGRAMS = (b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa", b"#!", b"%PDF", b"PK")
"""First bytes of programs and documents; a DICOM preamble can make a file double as one."""
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
"""What pydicom raises for damaged files. Its messages may quote patient data, so we drop them."""


@final
@dataclass(frozen=True, slots=True)
class SliceHeader:
    """The elements used from one slice's header; None where missing or malformed.

    Attributes:
        file: Where the slice is stored.
        frame: Index within the file, from 0.
        patient: PatientID, or name and birth date; only compared, never shown.
        modality: ``CT`` and so on.
        study: StudyInstanceUID; only compared, never shown.
        series: SeriesInstanceUID.
        series_number: Infinite where missing or implausible.
        called: The names by which a user may ask for the series: its UID and its number.
        parting: Values of `_PARTING`, and ImageType; only compared, never shown.
        derived: 0 for an original image, 1 for one derived from it, 2 for a projection or map.
        kernel: ConvolutionKernel.
        localizer: Whether it is a localizer (scout view).
        grey: Whether pixels are grey values, not colours.
        codes: Codes of warnings about the image.
        thickness_mm: SliceThickness; infinite where missing.
        size: Rows and columns.
        spacing_mm: Distance between rows, between columns.
        position_lps_mm: Centre of the first voxel.
        orientation: Direction of the rows, then of the columns, six cosines.
        rescale: Slope and intercept.
        accession: AccessionNumber; only compared, never shown.
    """

    file: DicomFile
    frame: int
    patient: tuple[str, ...]
    modality: str
    study: str
    series: str
    series_number: float
    called: frozenset[str]
    parting: tuple[str, ...]
    derived: int
    kernel: str
    localizer: bool
    grey: bool
    codes: frozenset[str]
    thickness_mm: float
    size: Numbers | None
    spacing_mm: Numbers | None
    position_lps_mm: Numbers | None
    orientation: Numbers | None
    rescale: Numbers | None
    accession: str


def read_headers(files: list[DicomFile], study: str) -> tuple[list[SliceHeader], Notes]:
    """Headers of all slices in DICOM files, in their order.

    Returns:
        Headers; ``W_OTHER_FILES`` when some files are no DICOM, ``W_PREAMBLE`` when one begins
        as a program.

    Raises:
        CtscribeError: ``E_NOT_DICOM`` when there is none, ``E_TRUNCATED`` when one is damaged,
            ``E_MULTIFRAME``, ``E_CODEC`` or ``E_READ``.
    """
    headers: list[SliceHeader] = []
    others = programs = 0
    for file in files:
        image = read_dataset(file, study, pixels=False)
        if image is None:
            others += 1
            continue
        programs += (image.preamble or b"").startswith(_PROGRAMS)
        with reading_dicom(study):
            if image.file_meta.get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage:
                headers.extend(_slices_of(file, image, study))
    if not headers:
        raise CtscribeError(
            "E_NOT_DICOM", f"{study} must hold DICOM files, but none was found in it"
        )
    return headers, note_if(others > 0, "W_OTHER_FILES") | note_if(programs > 0, "W_PREAMBLE")


def read_dataset(
    file: DicomFile, study: str, *, pixels: bool, tags: Sequence[str] = TAGS
) -> FileDataset | None:
    """Reads a whole file, or these elements of its header; None for files that are not DICOM.

    A file that is not DICOM although it must be, see `DicomFile.claimed`, counts as damaged.
    """
    with reading_dicom(study), file.open() as stream:
        start = stream.read(2048)
        bare = begins_bare(start)
        if start[128:132] != b"DICM" and not bare:
            if file.claimed:
                raise EOFError
            return None
        if str(DeflatedExplicitVRLittleEndian).encode() in start:
            raise CtscribeError(
                "E_CODEC",
                f"{study} must not be deflated as a whole, because such a file can inflate "
                "without bound",
            )
        stream.seek(0)
        if pixels:
            return pydicom.dcmread(stream, force=bare)
        asked = list(tags)
        return pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=asked, force=bare)


@contextmanager
def reading_dicom(study: str) -> Iterator[None]:
    """Turns errors in the block into ours, and mutes pydicom's warnings, which quote values.

    Raises:
        CtscribeError: ``E_TRUNCATED`` for what pydicom cannot parse, ``E_READ`` from the system.
    """
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        except _UNREADABLE as error:
            raise _damaged(study) from error
        except OSError as error:
            if error.errno is None:  # pydicom's own, for sequences that it cannot follow
                raise _damaged(study) from error
            raise not_readable(study, error) from error
        finally:
            log.setLevel(level)


def _slices_of(file: DicomFile, image: Dataset, study: str) -> Iterator[SliceHeader]:
    """The slices of a classic or an enhanced CT image, or the one of another object.

    Raises:
        CtscribeError: ``E_MULTIFRAME``.
        EOFError: For a file that is cut within its header but can still be parsed.
    """
    _check_complete(image)
    count = int(image.get("NumberOfFrames") or 1)
    per_frame = image.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        if count > 1 and image.SOPClassUID in _CT_CLASSES:
            raise CtscribeError(
                "E_MULTIFRAME",
                f"{study} must say where each slice lies, but one file holds many without",
            )
        if count > 1:
            image.Modality = "OT"  # other: frames without positions, such as screenshots
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


def _check_complete(image: Dataset) -> None:
    """Refuses a cut header: one without the elements that every object, or CT image, has."""
    needed = ["SOPClassUID"]
    if image.get("SOPClassUID") in _CT_CLASSES:
        needed += ["Modality", "SeriesInstanceUID", "Rows", "Columns"]
    if any(tag not in image for tag in needed):
        raise EOFError


def plane_normal(orientation: Numbers) -> Numbers:
    """Unit normal of the plane of two directions, given as six cosines."""
    normal = np.cross(orientation[:3], orientation[3:])
    unit: Numbers = normal / np.linalg.norm(normal)
    return unit


def _parse(file: DicomFile, frame: int, image: Dataset, place: Dataset) -> SliceHeader:
    spacing = _numbers(place, "PixelSpacing", 2)
    thickness = _numbers(place, "SliceThickness", 1)
    kinds = _values(place.get("FrameType") or image.get("ImageType"))
    series = str(image.get("SeriesInstanceUID", ""))
    return SliceHeader(
        file=file,
        frame=frame,
        patient=_patient(image),
        modality=str(image.get("Modality", "")),
        study=str(image.get("StudyInstanceUID", "")),
        series=series,
        series_number=_series_number(image),
        called=frozenset({series, str(image.get("SeriesNumber", ""))}),
        parting=(*(str(place.get(tag, image.get(tag))) for tag in _PARTING), str(kinds)),
        derived=_derived(kinds),
        kernel=str(place.get("ConvolutionKernel", "")),
        localizer="LOCALIZER" in (*kinds, *_values(image.get("ImageType"))),
        grey=int(image.get("SamplesPerPixel") or 1) == 1,
        codes=_codes(image),
        thickness_mm=np.inf if thickness is None else float(thickness[0]),
        size=_pair(image, "Rows", "Columns"),
        spacing_mm=None if spacing is None or spacing.min() <= 0 else spacing,
        position_lps_mm=_numbers(place, "ImagePositionPatient", 3),
        orientation=_directions(place),
        rescale=_pair(place, "RescaleSlope", "RescaleIntercept"),
        accession=str(image.get("AccessionNumber") or "").strip(),
    )


def _patient(image: Dataset) -> tuple[str, ...]:
    """PatientID alone if there is one, because a patient's name may be spelt in several ways."""
    number = str(image.get("PatientID") or "").strip()
    if number:
        return (number,)
    return "", str(image.get("PatientName") or ""), str(image.get("PatientBirthDate") or "")


def _codes(image: Dataset) -> frozenset[str]:
    body_part = str(image.get("BodyPartExamined") or "").upper().replace(" ", "")
    codes = {
        "W_BURNED_IN": str(image.get("BurnedInAnnotation") or "").upper() == "YES",
        "W_BODY_PART": body_part in _NOT_THE_CHEST,
    }
    return frozenset(code for code, applies in codes.items() if applies)


def _series_number(image: Dataset) -> float:
    number = _numbers(image, "SeriesNumber", 1)
    usable = number is not None and 0 <= number[0] <= _MAX_SERIES_NUMBER
    return float(number[0]) if number is not None and usable else np.inf


def _values(element: Any) -> tuple[str, ...]:  # noqa: ANN401 - one string, several or none
    """An element's values, however many, in capitals."""
    several = [element] if isinstance(element, str) else element or ()
    return tuple(str(value).upper() for value in several)


def _derived(kinds: tuple[str, ...]) -> int:
    """How far an image is from the original, by ImageType; see `SliceHeader`."""
    words = {word for kind in kinds for word in re.findall("[A-Z]+", kind)}
    if words & _COMPUTED:
        return 2
    return int(kinds[:1] == ("DERIVED",) or bool(words & _REFORMATS))


def _directions(place: Dataset) -> Numbers | None:
    """ImageOrientationPatient, None unless it is two unit vectors at right angles."""
    found = _numbers(place, "ImageOrientationPatient", 6)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > 0.01:
        return None
    return found


def _pair(header: Dataset, *tags: str) -> Numbers | None:
    numbers = [number for tag in tags if (number := _numbers(header, tag, 1)) is not None]
    return np.concatenate(numbers) if len(numbers) == len(tags) else None


def _numbers(header: Dataset, tag: str, count: int) -> Numbers | None:
    """An element's value as that many finite numbers; None for anything else."""
    try:
        values: np.ndarray[Any, Any] = np.atleast_1d(np.array(header.get(tag), dtype=np.float64))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _damaged(study: str) -> CtscribeError:
    return CtscribeError(
        "E_TRUNCATED", f"{study} must consist of complete DICOM files, but one is cut or damaged"
    )
