"""A DICOM series → Hounsfield units and where they lie.

DICOM's axes (left, posterior, superior) end in this module; errors name the study as the
caller does and never quote a header.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, VolumeHu
from ctscribe.volume.dicom_files import Header, Numbers, read_headers
from ctscribe.volume.dicom_pixels import Stored, read_stored
from ctscribe.volume.dicom_sources import DicomFile, dicom_files
from ctscribe.volume.geometry import lps_affine

_MAX_TILT_DEGREES = 0.5
_SAME_PLACE_MM = 0.01
_MODALITIES = {"CT", "CR", "DX", "MG", "MR", "NM", "OT", "PR", "PT", "RF", "SC", "SEG", "SR", "US"}
"""Those that an error may name; the tag is free text in careless hands."""


@final
@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a series.

    Attributes:
        file: Where it is stored.
        frame: Its place in that file, from 0.
        position_lps_mm: Centre of its first voxel.
        slope: From stored values to HU.
        intercept: From stored values to HU.
    """

    file: DicomFile
    frame: int
    position_lps_mm: Numbers
    slope: float
    intercept: float


@final
@dataclass(frozen=True, slots=True)
class Geometry:
    """What the slices of a series share.

    Attributes:
        size: Rows and columns.
        spacing_mm: Between rows, between columns.
        orientation: Direction of the rows, then of the columns, six cosines.
    """

    size: Numbers
    spacing_mm: Numbers
    orientation: Numbers

    @property
    def normal(self) -> Numbers:
        """Of the slices' plane."""
        return np.cross(self.orientation[:3], self.orientation[3:])


def read_dicom(path: Path, study: str) -> tuple[VolumeHu, Affine, tuple[str, ...]]:
    """Reads the one CT series of a folder or zip archive, or the largest of several.

    The series with the most slices is taken; of equal ones that with the thinnest slices, then
    the lowest series number. Slices are ordered by their position along the normal of their
    plane, whatever their names or numbers.

    Args:
        path: A folder, searched with its subfolders, or a zip archive, in both of which files
            that are not DICOM are passed over; or one enhanced (multi-frame) CT file.
        study: Name for errors.

    Returns:
        HU [x, y, z], int16 (float32 where a slope is no whole number); RAS+ affine; warnings.

    Raises:
        CtscribeError: What is wrong with the series, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
        series, more = choose_series(headers, study)
        slices, geometry = order_slices(series, study)
        kept, hu = _read_hu(slices, geometry, study)
    affine = _affine(kept, geometry, study)
    repeated = ("W_DUPLICATE_SLICE",) if len(kept) < len(slices) else ()
    return hu, affine, (*others, *more, *repeated)


def read_dicom_grid(path: Path, study: str) -> tuple[tuple[int, int, int], Affine, tuple[str, ...]]:
    """Reads where the voxels of a series lie, and none of them.

    Args:
        path: See `read_dicom`.
        study: Name for errors.

    Returns:
        Shape (x, y, z), RAS+ affine and warnings.

    Raises:
        CtscribeError: What is wrong with the headers, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
    series, more = choose_series(headers, study)
    slices, geometry = order_slices(series, study)
    kept = slices[:1]
    for one in slices[1:]:
        if not _same_place(kept[-1], one, geometry):
            kept.append(one)
    rows, columns = (int(size) for size in geometry.size)
    return (columns, rows, len(kept)), _affine(kept, geometry, study), (*others, *more)


def choose_series(headers: list[Header], study: str) -> tuple[list[Header], tuple[str, ...]]:
    """Picks one CT series by the rule of `read_dicom`, leaving localizers out.

    Raises:
        CtscribeError: ``E_NOT_CT`` or ``E_MIXED_PATIENT``.
    """
    images = [one for one in headers if one.modality == "CT" and one.size is not None]
    images = [one for one in images if not one.localizer]
    if not images:
        found = sorted({one.modality if one.modality in _MODALITIES else "?" for one in headers})
        raise CtscribeError(
            "E_NOT_CT",
            f"{study} must hold axial CT images, but holds none (modalities: {', '.join(found)}); "
            "give the folder of the CT series",
        )
    if len({one.patient for one in images}) > 1:
        raise CtscribeError(
            "E_MIXED_PATIENT",
            f"{study} must hold images of one patient, but holds several; "
            "give each patient an own folder",
        )
    by_series: defaultdict[str, list[Header]] = defaultdict(list)
    for one in images:
        by_series[one.series].append(one)

    def preference(series: list[Header]) -> tuple[int, float, float, str]:
        first = series[0]
        return -len(series), first.thickness_mm, first.series_number, first.series

    return min(by_series.values(), key=preference), ("W_OTHER_SERIES",) * (len(by_series) > 1)


def order_slices(series: list[Header], study: str) -> tuple[list[Slice], Geometry]:
    """Orders slices along the normal of their common plane.

    Raises:
        CtscribeError: ``E_DICOM_TAG`` where geometry is missing, ``E_MIXED_GEOMETRY`` where the
            slices do not share size, spacing and direction, ``E_NO_RESCALE``.
    """
    tags = {
        "image size": ([one.size for one in series], 0.0),
        "PixelSpacing": ([one.spacing_mm for one in series], 1e-4),
        "ImageOrientationPatient": ([one.orientation for one in series], 1e-3),
        "ImagePositionPatient": ([one.position_lps_mm for one in series], np.inf),
    }
    shared = [_shared(tag, values, far, study) for tag, (values, far) in tags.items()]
    geometry = Geometry(size=shared[0], spacing_mm=shared[1], orientation=shared[2])
    slices = [
        Slice(
            one.file, one.frame, one.position_lps_mm, float(one.rescale[0]), float(one.rescale[1])
        )
        for one in series
        if one.position_lps_mm is not None and one.rescale is not None
    ]
    if len(slices) < len(series):
        raise CtscribeError(
            "E_NO_RESCALE",
            f"{study} must have a rescale slope and intercept in each slice, but one slice "
            "lacks them; export the original CT images",
        )
    slices.sort(key=lambda one: float(one.position_lps_mm @ geometry.normal))
    return slices, geometry


def _shared(tag: str, values: list[Numbers | None], far: float, study: str) -> Numbers:
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        raise CtscribeError(
            "E_DICOM_TAG",
            f"{study} must have a usable {tag} in each slice, but one slice has none; "
            "export the series again",
        )
    if any(np.abs(value - present[0]).max() > far for value in present):
        raise CtscribeError(
            "E_MIXED_GEOMETRY",
            f"{study} must have one {tag} in all slices of a series, but they differ; "
            "export the reconstructions into separate folders",
        )
    return present[0]


def _same_place(before: Slice, one: Slice, geometry: Geometry) -> bool:
    step = one.position_lps_mm - before.position_lps_mm
    return bool(step @ geometry.normal < _SAME_PLACE_MM)


def _read_hu(slices: list[Slice], geometry: Geometry, study: str) -> tuple[list[Slice], VolumeHu]:
    """Reads the voxels slice by slice, each with its own slope and intercept.

    A slice that repeats another is dropped; two that contradict each other are refused.
    """
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in slices)
    kept: list[Slice] = []
    before: Stored | None = None
    planes = np.empty((0, 0, 0))
    stored = read_stored(((one.file, one.frame) for one in slices), study)
    for one, read in zip(slices, stored, strict=True):
        if before is None:
            # only now, because a header can claim any size
            planes = np.empty((len(slices), *read.shape), dtype=np.int16 if whole else np.float32)
        elif _same_place(kept[-1], one, geometry):
            same_scale = (kept[-1].slope, kept[-1].intercept) == (one.slope, one.intercept)
            if not (same_scale and np.array_equal(before, read)):
                raise CtscribeError(
                    "E_DUPLICATE_SLICE",
                    f"{study} must have one slice per position, but two different ones lie at the "
                    "same; remove one of the two acquisitions",
                )
            continue
        hu = read * np.float64(one.slope) + one.intercept
        planes[len(kept)] = np.clip(hu, -32768, 32767)
        kept.append(one)
        before = read
    return kept, planes[: len(kept)].T


def _affine(slices: list[Slice], geometry: Geometry, study: str) -> Affine:
    """The affine of evenly spaced, upright slices.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES``, ``E_GAP``, ``E_UNEVEN_SPACING`` or ``E_SHEAR``.
    """
    positions: Float64[np.ndarray, "slices 3"] = np.array([one.position_lps_mm for one in slices])
    if len(positions) < 2:
        raise CtscribeError(
            "E_TOO_FEW_SLICES",
            f"{study} must be a volume, but has one slice; give the folder of the whole series",
        )
    normal = geometry.normal
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    usual = float(np.median(along))
    gaps = along > 1.5 * usual
    if gaps.any():
        raise CtscribeError(
            "E_GAP",
            f"{study} must have slices {usual:g} mm apart throughout, but about "
            f"{round(float((along[gaps] / usual - 1).sum()))} are missing; export it completely",
        )
    if np.abs(along - usual).max() > max(0.1 * usual, 0.02):
        raise CtscribeError(
            "E_UNEVEN_SPACING",
            f"{study} must have slices at equal distances, but they lie {along.min():g} to "
            f"{along.max():g} mm apart; export one evenly spaced reconstruction",
        )
    sideways = np.linalg.norm(steps - along[:, None] * normal, axis=1)
    tilt = float(np.degrees(np.arctan2(sideways, along)).max())
    if tilt > _MAX_TILT_DEGREES:
        raise CtscribeError(
            "E_SHEAR",
            f"{study} must have slices stacked at right angles, but the gantry was tilted by "
            f"{tilt:.1f} degrees; resample it upright first",
        )
    row_mm, column_mm = geometry.spacing_mm.tolist()
    step_mm = float((positions[-1] - positions[0]) @ normal) / (len(positions) - 1)
    x, y, z = positions[0].tolist()
    return lps_affine((column_mm, row_mm, step_mm), (x, y, z), tuple(geometry.orientation.tolist()))
