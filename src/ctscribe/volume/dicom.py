"""The folder of a DICOM series → Hounsfield units and where they lie.

DICOM's axes (left, posterior, superior) end in this module; errors name the study as the
caller does and never quote a header.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64
from pydicom.dataset import Dataset

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, VolumeHu
from ctscribe.volume.dicom_files import Pixels, read_headers, read_pixels
from ctscribe.volume.geometry import lps_affine

_MAX_TILT_DEGREES = 0.5
_SAME_POSITION_MM = 0.01


@final
@dataclass(frozen=True, slots=True)
class Slice:
    """One image of a series: its file, its header, and the centre of its first voxel."""

    path: Path
    header: Dataset
    position_lps_mm: Float64[np.ndarray, "3"]


def read_dicom(folder: Path, study: str) -> tuple[VolumeHu, Affine, tuple[str, ...]]:
    """Reads the one CT series of a folder, or the largest of several.

    The series with the most slices is taken; of equal ones that with the thinnest slices, then
    the lowest series number. Slices are ordered by their position along the normal of their
    plane, whatever their names or numbers.

    Args:
        folder: Searched with its subfolders; files that are not DICOM are passed over.
        study: Name for errors.

    Returns:
        HU [x, y, z], int16 (float32 where a slope is no whole number); RAS+ affine; warnings.

    Raises:
        CtscribeError: What is wrong with the series, in one sentence.
    """
    headers, others = read_headers(folder, study)
    series, more = choose_series(headers, study)
    ordered, normal = order_slices(series, study)
    slices, pixels, duplicates = _without_duplicates(ordered, normal, study)
    affine = _affine(slices, normal, study)
    return _to_hu(pixels), affine, (*others, *more, *duplicates)


def choose_series(
    headers: list[tuple[Path, Dataset]], study: str
) -> tuple[list[tuple[Path, Dataset]], tuple[str, ...]]:
    """Picks one CT series by the rule of `read_dicom`, leaving localizers out.

    Raises:
        CtscribeError: ``E_NOT_CT`` or ``E_MIXED_PATIENT``.
    """
    by_series: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path, header in headers:
        localizer = "LOCALIZER" in (header.get("ImageType") or ())
        if header.get("Modality") == "CT" and "Rows" in header and not localizer:
            by_series[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    if not by_series:
        found = sorted({str(header.get("Modality") or "none")[:8] for _, header in headers})
        raise CtscribeError(
            "E_NOT_CT",
            f"{study} must hold axial CT images, but holds none (modalities: {', '.join(found)}); "
            "give the folder of the CT series",
        )
    images = [header for series in by_series.values() for _, header in series]
    if len({str(header.get("PatientID", "")) for header in images}) > 1:
        raise CtscribeError(
            "E_MIXED_PATIENT",
            f"{study} must hold images of one patient, but holds several; "
            "give each patient an own folder",
        )
    chosen = min(by_series, key=lambda uid: _preference(uid, by_series[uid]))
    return by_series[chosen], ("W_OTHER_SERIES",) if len(by_series) > 1 else ()


def _preference(uid: str, series: list[tuple[Path, Dataset]]) -> tuple[int, float, int, str]:
    header = series[0][1]
    thickness = header.get("SliceThickness")
    number = header.get("SeriesNumber")
    return -len(series), float(thickness or np.inf), int(number or 0), uid


def order_slices(
    series: list[tuple[Path, Dataset]], study: str
) -> tuple[list[Slice], Float64[np.ndarray, "3"]]:
    """Orders slices along the normal of their common plane.

    Raises:
        CtscribeError: ``E_DICOM_TAG`` where geometry is missing, ``E_MIXED_GEOMETRY`` where the
            slices do not share size, spacing and direction.
    """
    for _, header in series:
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if not header.get(tag) or (tag == "PixelSpacing" and min(header[tag].value) <= 0):
                raise CtscribeError(
                    "E_DICOM_TAG",
                    f"{study} must have a usable {tag} in each slice, but one slice has none; "
                    "export the series again",
                )
    first = series[0][1]
    for tag, tolerance in (
        ("Rows", 0.0),
        ("Columns", 0.0),
        ("PixelSpacing", 1e-4),
        ("ImageOrientationPatient", 1e-3),
    ):
        expected = np.array(first[tag].value, dtype=float)
        for _, header in series:
            if not np.allclose(np.array(header[tag].value, dtype=float), expected, atol=tolerance):
                raise CtscribeError(
                    "E_MIXED_GEOMETRY",
                    f"{study} must have one {tag} in all slices of a series, but they differ; "
                    "export the reconstructions into separate folders",
                )
    cosines = np.array(first.ImageOrientationPatient, dtype=float)
    normal = np.cross(cosines[:3], cosines[3:])
    slices = [
        Slice(path, header, np.array(header.ImagePositionPatient, dtype=float))
        for path, header in series
    ]
    return sorted(slices, key=lambda one: float(one.position_lps_mm @ normal)), normal


def _without_duplicates(
    slices: list[Slice], normal: Float64[np.ndarray, "3"], study: str
) -> tuple[list[Slice], list[Pixels], tuple[str, ...]]:
    """Reads the pixels; drops a slice that repeats another, refuses two that contradict."""
    kept: list[Slice] = []
    pixels: list[Pixels] = []
    for one in slices:
        read = read_pixels(one.path, study)
        if kept and (one.position_lps_mm - kept[-1].position_lps_mm) @ normal < _SAME_POSITION_MM:
            if not pixels[-1].same_as(read):
                raise CtscribeError(
                    "E_DUPLICATE_SLICE",
                    f"{study} must have one slice per position, but two different ones lie at the "
                    "same; remove one of the two acquisitions",
                )
            continue
        kept.append(one)
        pixels.append(read)
    return kept, pixels, ("W_DUPLICATE_SLICE",) if len(kept) < len(slices) else ()


def _affine(slices: list[Slice], normal: Float64[np.ndarray, "3"], study: str) -> Affine:
    """The affine of evenly spaced, upright slices.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES``, ``E_GAP``, ``E_UNEVEN_SPACING`` or ``E_SHEAR``.
    """
    if len(slices) < 2:
        raise CtscribeError(
            "E_TOO_FEW_SLICES",
            f"{study} must be a volume, but has one slice; give the whole series",
        )
    positions = np.array([one.position_lps_mm for one in slices])
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
    header = slices[0].header
    row_mm, column_mm = (float(mm) for mm in header.PixelSpacing)
    step_mm = float((positions[-1] - positions[0]) @ normal) / (len(slices) - 1)
    x, y, z = positions[0].tolist()
    cosines = tuple(float(cosine) for cosine in header.ImageOrientationPatient)
    return lps_affine((column_mm, row_mm, step_mm), (x, y, z), cosines)


def _to_hu(pixels: list[Pixels]) -> VolumeHu:
    """Applies each slice's own slope and intercept."""
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in pixels)
    shape = (len(pixels), *pixels[0].stored.shape)
    volume = np.empty(shape, dtype=np.int16 if whole else np.float32)
    for plane, one in zip(volume, pixels, strict=True):
        hu = one.stored * np.float64(one.slope) + one.intercept
        plane[...] = np.clip(hu, -32768, 32767)
    return volume.T
