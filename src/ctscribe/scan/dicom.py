"""A DICOM series → Hounsfield units [x, y, z] and their affine in RAS+ mm.

In: a folder, zip archive or file. DICOM's axes (left, posterior, superior) end here, and no error
quotes a header.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.dicom_headers import Numbers, SliceHeader, plane_normal, read_headers
from ctscribe.scan.dicom_pixels import PlaneHu, Slice, read_planes
from ctscribe.scan.dicom_series import choose_series
from ctscribe.scan.dicom_sources import dicom_files
from ctscribe.scan.dicom_stacks import SAME_PLACE_MM, is_even
from ctscribe.scan.types import Affine, VolumeHu
from ctscribe.scan.volume import Notes, lps_to_ras, note_if

_GAP = 1.5
"""A slice is missing where a distance exceeds the median distance by this factor."""
_MAX_OFFSET_MM = 0.5
"""How far a slice may lie off the line through the others; about half a pixel."""


@final
@dataclass(frozen=True, slots=True)
class Geometry:
    """What all slices of a series have in common.

    Attributes:
        size: Rows and columns.
        spacing_mm: Distance between rows, between columns.
        orientation: Direction of the rows, then of the columns, six cosines.
    """

    size: Numbers
    spacing_mm: Numbers
    orientation: Numbers

    @property
    def normal(self) -> Numbers:
        """Unit vector at right angles to the slices."""
        return plane_normal(self.orientation)


def read_dicom(path: Path, study: str, asked: str | None = None) -> tuple[VolumeHu, Affine, Notes]:
    """Reads one CT series of a folder or zip archive, chosen as `choose_series` says.

    Slices are ordered by their position along the normal of their plane, whatever their names
    or numbers.

    Args:
        path: A folder, searched with its subfolders, or a zip archive; other files in them are
            skipped. Or one enhanced (multi-frame) CT file.
        study: Name for errors.
        asked: Number or SeriesInstanceUID of the series to read.

    Returns:
        HU [x, y, z], int16 (float32 where a slope is no whole number); RAS+ affine, sheared
        where the gantry was tilted; notes.

    Raises:
        CtscribeError: What is wrong with the series, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
        series, more = choose_series(headers, study, asked)
        slices, geometry = order_slices(series, study)
        kept, hu = _read_hu(slices, geometry, study)
    affine = _stack_affine(kept, geometry, study)
    return hu, affine, others | more | note_if(len(kept) < len(slices), "W_DUPLICATE_SLICE")


def read_dicom_grid(
    path: Path, study: str, asked: str | None = None
) -> tuple[tuple[int, int, int], Affine, Notes]:
    """Reads only the headers of the series that `read_dicom` would read.

    Returns:
        Shape (x, y, z), RAS+ affine and notes.

    Raises:
        CtscribeError: What is wrong with the headers, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
    series, more = choose_series(headers, study, asked)
    shape, affine = grid_of(series, study)
    return shape, affine, others | more


def grid_of(series: list[SliceHeader], study: str) -> tuple[tuple[int, int, int], Affine]:
    """Shape (x, y, z) and RAS+ affine of one series' slices.

    Raises:
        CtscribeError: What is wrong with the headers, in one sentence.
    """
    slices, geometry = order_slices(series, study)
    kept = slices[:1]
    for one in slices[1:]:
        if not _same_place(kept[-1], one, geometry):
            kept.append(one)
    rows, columns = (int(size) for size in geometry.size)
    return (columns, rows, len(kept)), _stack_affine(kept, geometry, study)


def order_slices(series: list[SliceHeader], study: str) -> tuple[list[Slice], Geometry]:
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
    shared = [_shared(tag, values, within, study) for tag, (values, within) in tags.items()]
    geometry = Geometry(size=shared[0], spacing_mm=shared[1], orientation=shared[2])
    slices = [
        Slice(
            one.file, one.frame, one.position_lps_mm, float(one.rescale[0]), float(one.rescale[1])
        )
        for one in series
        if one.position_lps_mm is not None and one.rescale is not None and one.rescale[0] != 0
    ]
    if len(slices) < len(series):
        raise CtscribeError(
            "E_NO_RESCALE",
            f"{study} must have a rescale slope and intercept in each slice, but one slice "
            "lacks them",
        )
    slices.sort(key=lambda one: float(one.position_lps_mm @ geometry.normal))
    return slices, geometry


def _shared(tag: str, values: list[Numbers | None], tolerance: float, study: str) -> Numbers:
    """The value that all slices have for a tag, within a tolerance."""
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        raise CtscribeError(
            "E_DICOM_TAG", f"{study} must have a usable {tag} in each slice, but one slice has none"
        )
    if any(np.abs(value - present[0]).max() > tolerance for value in present):
        raise CtscribeError(
            "E_MIXED_GEOMETRY",
            f"{study} must have one {tag} in all slices of a series, but they differ",
        )
    return present[0]


def _same_place(before: Slice, one: Slice, geometry: Geometry) -> bool:
    """Whether two neighbours in order lie at one position along the normal."""
    step = one.position_lps_mm - before.position_lps_mm
    return bool(step @ geometry.normal < SAME_PLACE_MM)


def _stack_affine(slices: list[Slice], geometry: Geometry, study: str) -> Affine:
    """The affine of evenly spaced slices on one line, which may be tilted to their normal.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES``, ``E_GAP`` or ``E_UNEVEN_SPACING``.
    """
    positions: Float64[np.ndarray, "slices 3"] = np.array([one.position_lps_mm for one in slices])
    if len(positions) < 2:
        raise CtscribeError("E_TOO_FEW_SLICES", f"{study} must be a volume, but has one slice")
    _check_even(np.diff(positions, axis=0) @ geometry.normal, study)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    offsets = positions - positions[0] - np.arange(len(positions))[:, None] * step
    offsets -= (offsets @ geometry.normal)[:, None] * geometry.normal
    farthest = float(np.linalg.norm(offsets, axis=1).max())
    if farthest > _MAX_OFFSET_MM:
        raise CtscribeError(
            "E_UNEVEN_SPACING",
            f"{study} must have its slices on one line, but one lies {farthest:.1f} mm beside it",
        )
    row_mm, column_mm = geometry.spacing_mm.tolist()
    lps = np.eye(4)
    lps[:3, 0] = geometry.orientation[:3] * column_mm
    lps[:3, 1] = geometry.orientation[3:] * row_mm
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    return lps_to_ras(lps)


def _check_even(along: Numbers, study: str) -> None:
    """Refuses slices with a gap or uneven distances, given in mm along the normal."""
    usual = float(np.median(along))
    gaps = along > _GAP * usual
    if gaps.any():
        raise CtscribeError(
            "E_GAP",
            f"{study} must have slices {usual:g} mm apart throughout, but about "
            f"{round(float((along[gaps] / usual - 1).sum()))} are missing",
        )
    if not is_even(along):
        raise CtscribeError(
            "E_UNEVEN_SPACING",
            f"{study} must have slices at equal distances, but they lie {along.min():g} to "
            f"{along.max():g} mm apart",
        )


def _read_hu(slices: list[Slice], geometry: Geometry, study: str) -> tuple[list[Slice], VolumeHu]:
    """Reads the voxels slice by slice, each with its own slope and intercept.

    A slice that repeats another is dropped; two that contradict each other are refused.
    """
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in slices)
    kept: list[Slice] = []
    before: PlaneHu | None = None
    planes = np.empty((0, 0, 0))
    with closing(read_planes(slices, study)) as read:
        for one, hu in zip(slices, read, strict=True):
            if before is None:
                # only now, because a header can claim any size
                dtype = np.int16 if whole else np.float32
                planes = np.empty((len(slices), *hu.shape), dtype=dtype)
            elif _same_place(kept[-1], one, geometry):
                if not np.array_equal(before, hu):
                    raise CtscribeError(
                        "E_DUPLICATE_SLICE",
                        f"{study} must have one slice per position, but two different ones lie at "
                        "the same",
                    )
                continue
            planes[len(kept)] = np.clip(hu, -32768, 32767)
            kept.append(one)
            before = hu
    return kept, planes[: len(kept)].T
