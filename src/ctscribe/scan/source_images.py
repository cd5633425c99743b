"""A DICOM series → its images, for documents that refer to them.

In: a path, as for `read_dicom`. Out: `SourceSeries`. The patient's identity is read only on
request; nothing else in the package keeps it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage
from pydicom.valuerep import validate_value

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom import Geometry, order_slices
from ctscribe.scan.dicom_headers import Numbers, read_dataset, read_headers, reading_dicom
from ctscribe.scan.dicom_pixels import Slice
from ctscribe.scan.dicom_series import choose_series
from ctscribe.scan.dicom_sources import DicomFile, dicom_files

_OF_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
"""Elements by which an archive files a document beside the images of its study."""
_OF_IMAGE = ("SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_CLASS = "SOPClassUID"
_NEEDED = frozenset({_CLASS, "PatientID", "StudyInstanceUID", *_OF_IMAGE})
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd]")
"""Control characters, and the replacement character for undecodable bytes."""


@final
@dataclass(frozen=True, slots=True)
class SourceImage:
    """One slice, as documents name it.

    Attributes:
        position_lps_mm: Centre of its first voxel.
        file: Number of its file in the series, from 0.
        frame: Its number in that file, from 1; None where the file holds one image.
        sop_class: SOPClassUID.
        uids: UIDs of the image, its series and its frame of reference; None if not read.
    """

    position_lps_mm: Numbers
    file: int
    frame: int | None
    sop_class: str
    uids: tuple[str, str, str] | None


@final
@dataclass(frozen=True, slots=True)
class SourceSeries:
    """The slices that a scan was read from, in order along their normal.

    Attributes:
        images: One or more.
        geometry: Size, spacing and orientation, which the images share.
        identity: The elements of patient and study that are present, by keyword; None if not read.
    """

    images: tuple[SourceImage, ...]
    geometry: Geometry
    identity: Mapping[str, str] | None

    def nearest(self, place_ras_mm: Float64[np.ndarray, "3"]) -> SourceImage:
        """The image whose plane lies nearest to a place."""
        planes = np.array([one.position_lps_mm for one in self.images]) @ self.geometry.normal
        along = float(place_ras_mm * (-1, -1, 1) @ self.geometry.normal)
        return self.images[int(np.abs(planes - along).argmin())]

    def in_pixels(
        self, image: SourceImage, places_ras_mm: Float64[np.ndarray, "places 3"]
    ) -> Float64[np.ndarray, "places 2"]:
        """Places as (column, row) in an image; (0, 0) is its upper left corner, as in DICOM SR."""
        offsets = places_ras_mm * (-1, -1, 1) - image.position_lps_mm
        row_mm, column_mm = self.geometry.spacing_mm
        axes = self.geometry.orientation.reshape(2, 3).T / (column_mm, row_mm)
        pixels: Float64[np.ndarray, "places 2"] = offsets @ axes + 0.5
        return pixels


def read_source_series(
    path: Path, study: str, asked: str | None = None, *, with_identity: bool
) -> SourceSeries:
    """The images of the series that `read_dicom` would read.

    Args:
        path: As for `read_dicom`.
        study: Name for errors.
        asked: Number or SeriesInstanceUID of the series.
        with_identity: Also read the patient's identity, and the images' UIDs.

    Raises:
        CtscribeError: What is wrong with the series, in one sentence; ``E_DICOM_TAG`` or
            ``E_MIXED_PATIENT`` for an identity that cannot stand in a document.
    """
    tags = (_CLASS, *_OF_STUDY, *_OF_IMAGE) if with_identity else (_CLASS,)
    with dicom_files(path, study) as files:
        headers, _ = read_headers(files, study)
        series, _ = choose_series(headers, study, asked)
        slices, geometry = order_slices(series, study)
        files_in_order = dict.fromkeys(one.file for one in slices)
        elements = {file: _elements(file, study, tags) for file in files_in_order}
    numbers = {file: number for number, file in enumerate(elements)}
    images = tuple(_image(one, numbers[one.file], elements[one.file]) for one in slices)
    identity = _identity([*elements.values()], study) if with_identity else None
    return SourceSeries(images, geometry, identity)


def _image(one: Slice, number: int, elements: dict[str, str]) -> SourceImage:
    image, series, place = (elements.get(tag, "") for tag in _OF_IMAGE)
    return SourceImage(
        position_lps_mm=one.position_lps_mm,
        file=number,
        frame=None if elements[_CLASS] == CTImageStorage else one.frame + 1,
        sop_class=elements[_CLASS],
        uids=(image, series, place) if image else None,
    )


def _elements(file: DicomFile, study: str, tags: tuple[str, ...]) -> dict[str, str]:
    """The elements of these tags that a file has, as text; an invalid value is refused."""
    image = read_dataset(file, study, pixels=False, tags=tags) or Dataset()
    found: dict[str, str] = {}
    for tag in tags:
        with reading_dicom(study):
            value = image.get(tag)
            text = "" if value is None else str(value).strip("\0 ")
        if text and (isinstance(value, MultiValue) or not _is_valid(tag, text)):
            raise _unusable(tag, study)
        if text:
            found[tag] = text
        elif tag in _NEEDED:
            raise _unusable(tag, study)
    return found


def _is_valid(tag: str, text: str) -> bool:
    """Whether a value is valid for its element, and was decoded without loss."""
    kind = dictionary_VR(tag)
    try:
        validate_value(kind, text, RAISE)
        if kind == "DA":
            datetime.strptime(text, "%Y%m%d")  # the standard's check also takes ranges
    except ValueError:
        return False
    return _UNFIT.search(text) is None


def _unusable(tag: str, study: str) -> CtscribeError:
    return CtscribeError(
        "E_DICOM_TAG",
        f"{study} must have a usable {tag} in each slice to be referred to, but one slice has none",
    )


def _identity(files: list[dict[str, str]], study: str) -> dict[str, str]:
    """The elements of patient and study, in which all files must agree.

    Raises:
        CtscribeError: ``E_MIXED_PATIENT`` where they do not agree.
    """
    first, *others = ({tag: one[tag] for tag in _OF_STUDY if tag in one} for one in files)
    for other in others:
        for tag in _OF_STUDY:
            if first.get(tag) != other.get(tag):
                raise CtscribeError(
                    "E_MIXED_PATIENT",
                    f"{study} must state one patient and study to be sent under their name, but "
                    f"{tag} differs between its slices",
                )
    return first
