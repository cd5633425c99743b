"""One file or folder → a CT volume in Hounsfield units and RAS orientation, or a sentence."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from ctscribe.errors import CtscribeError
from ctscribe.reports.ct_rate_cells import VolumeMetadata
from ctscribe.types import Affine, VolumeHu
from ctscribe.volume.ct import CTVolume, to_ras
from ctscribe.volume.dicom import read_dicom, read_dicom_grid
from ctscribe.volume.dicom_sources import is_dicom
from ctscribe.volume.geometry import check_affine, lps_affine
from ctscribe.volume.intensity import Intensity, to_hu
from ctscribe.volume.nifti import Prefer, choose_affine, read_nifti, read_nifti_header
from ctscribe.volume.nifti_header import NiftiHeader

MIN_SLICES = 20
"""Fewer are a slab, not a chest."""
_REPEATED_SLICES = 5


def read_volume(
    path: Path,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    intensity: Intensity = "auto",
    prefer: Prefer | None = None,
) -> tuple[CTVolume, tuple[str, ...]]:
    """Reads a NIfTI file or a DICOM series.

    Args:
        path: NIfTI file (either, of a .hdr/.img pair), or the folder or zip archive of a DICOM
            series or one enhanced CT file; told apart by their first bytes.
        study: Name for errors; never taken from the file.
        metadata: CT-RATE's row: slope and intercept for raw files, geometry for files with a
            blank header (axes then run left, posterior, superior, as in CT-RATE).
        intensity: Whether slope and intercept still have to be applied.
        prefer: Which affine to believe when sform and qform disagree; None refuses.

    Returns:
        The volume in RAS orientation, nothing below −1024 HU, and warning codes.

    Raises:
        CtscribeError: What is wrong, in one sentence.
    """
    if _holds_dicom(path, study):
        values, affine, warnings = read_dicom(path, study)
        rescale = None
    else:
        values, header, warnings = read_nifti(path, study)
        affine, more = _geometry(header, metadata, study, prefer)
        warnings += more
        rescale = _rescale(metadata)
    warnings += _check_content(values, study)
    hu, more = to_hu(values, rescale, intensity, study)
    volume = to_ras(CTVolume(hu, affine))
    _check_depth(volume, study)
    return volume, tuple(sorted({*warnings, *more, *check_affine(affine, study)}))


def read_grid(
    path: Path,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    prefer: Prefer | None = None,
) -> tuple[CTVolume, tuple[str, ...]]:
    """Reads where a source's voxels lie, and none of them.

    Args:
        path: See `read_volume`.
        study: Name for errors.
        metadata: See `read_volume`.
        prefer: See `read_volume`.

    Returns:
        A volume in RAS orientation with the file's grid, zero throughout and without memory of
        its own, and warning codes.

    Raises:
        CtscribeError: What is wrong with the header, in one sentence.
    """
    if _holds_dicom(path, study):
        shape, affine, warnings = read_dicom_grid(path, study)
    else:
        header = read_nifti_header(path, study)
        affine, more = _geometry(header, metadata, study, prefer)
        shape, warnings = header.shape, (*header.warnings, *more)
    volume = to_ras(CTVolume(np.broadcast_to(np.int16(0), shape), affine))
    _check_depth(volume, study)
    return volume, tuple(sorted({*warnings, *check_affine(affine, study)}))


def _holds_dicom(path: Path, study: str) -> bool:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise CtscribeError(
                "E_READ",
                f"{study} must be a file or folder, but is a pipe or device; give the volume",
            )
        return is_dicom(path)
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{study} must be readable, but {error.strerror or error}; correct it"
        ) from error


def _check_depth(volume: CTVolume, study: str) -> None:
    if volume.shape_xyz[2] < MIN_SLICES:
        raise CtscribeError(
            "E_TOO_FEW_SLICES",
            f"{study} must have at least {MIN_SLICES} axial slices, but has "
            f"{volume.shape_xyz[2]}; give the whole series",
        )


def _rescale(metadata: VolumeMetadata | None) -> tuple[float, float] | None:
    if metadata is None or metadata.slope is None or metadata.intercept is None:
        return None
    return metadata.slope, metadata.intercept


def _geometry(
    header: NiftiHeader, metadata: VolumeMetadata | None, study: str, prefer: Prefer | None
) -> tuple[Affine, tuple[str, ...]]:
    spacing = metadata.spacing_mm if metadata else None
    blank = _is_blank(header)
    affine = None if blank and metadata else choose_affine(header, study, prefer)
    if affine is not None:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        differs = spacing is not None and not np.allclose(own, spacing, rtol=0.01)
        return affine, ("W_SPACING_METADATA",) if differs else ()
    if metadata is None:
        raise CtscribeError(
            "E_NO_GEOMETRY",
            f"{study} must say where its voxels lie, but its header sets neither sform nor qform; "
            "give its metadata row or set the header",
        )
    if spacing is None:
        raise CtscribeError(
            "E_NO_SPACING",
            f"{study} must have XYSpacing and ZSpacing in its metadata because its header is "
            "blank, but one is empty; fill it in or use the file with a header",
        )
    axes = metadata.orientation
    if axes is not None and not np.allclose(axes, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), atol=0.01):
        raise CtscribeError(
            "E_ORIENTATION",
            f"{study} must lie with its axes left, posterior, superior because its header is "
            "blank, but its metadata say otherwise; use the release with true headers",
        )
    position = metadata.position_lps_mm
    affine = lps_affine(spacing, position or (0.0, 0.0, 0.0))
    return affine, () if position else ("W_NO_POSITION",)


def _is_blank(header: NiftiHeader) -> bool:
    """No affine set, or only the default one of 1 mm voxels along the axes."""
    fields = header.fields
    if int(fields["sform_code"]) <= 0 and int(fields["qform_code"]) <= 0:
        return True
    affine = fields.get_best_affine()
    return bool(np.array_equal(np.abs(affine[:3, :3]), np.eye(3)))


def _check_content(values: VolumeHu, study: str) -> tuple[str, ...]:
    """Refuses a volume of one value; warns where at least five neighbouring slices are equal."""
    if values.min() == values.max():
        raise CtscribeError(
            "E_NO_CONTENT",
            f"{study} must show something, but each voxel has the value {values.flat[0]}; "
            "export or download it again",
        )
    slices = values.T
    equal = [
        np.array_equal(lower[::16, ::16], upper[::16, ::16]) and np.array_equal(lower, upper)
        for lower, upper in pairwise(slices)
    ]
    run = longest = 0
    for same in equal:
        run = run + 1 if same else 0
        longest = max(longest, run)
    return ("W_REPEATED_SLICES",) if longest + 1 >= _REPEATED_SLICES else ()
