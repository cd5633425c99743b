"""A NIfTI file or DICOM series → one CT volume in Hounsfield units and RAS orientation.

In: a path, and CT-RATE's metadata row where there is one. Out: `CTVolume` and notes, or a
`CtscribeError` that says in one sentence what is wrong.
"""

import hashlib
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import not_readable, sha256_of_file
from ctscribe.base.types import Intensity
from ctscribe.scan.dicom import read_dicom, read_dicom_grid
from ctscribe.scan.dicom_sources import files_below, is_dicom
from ctscribe.scan.file_list import is_file_list, read_file_list
from ctscribe.scan.intensity import to_hu
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.nifti import pair_of, read_nifti, read_nifti_header
from ctscribe.scan.nifti_header import NiftiHeader, Prefer, choose_affine, pixdim_differs
from ctscribe.scan.types import Affine, VolumeHu
from ctscribe.scan.upright import plan_upright, set_upright
from ctscribe.scan.volume import (
    MIN_SLICES,
    CTVolume,
    Notes,
    check_affine,
    lps_affine,
    note,
    note_if,
    note_source,
    note_unusual,
    spacing_of,
    to_ras,
)

_REPEATED_SLICES = 5


def read_volume(
    path: Path,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    intensity: Intensity = "auto",
    prefer: Prefer | None = None,
    series: str | None = None,
    max_tilt_degrees: float = 30.0,
) -> tuple[CTVolume, Notes]:
    """Reads a NIfTI file or a DICOM series.

    Args:
        path: NIfTI file (either one of a .hdr/.img pair), or the folder or zip archive of a DICOM
            series, or one enhanced CT file; recognised by their first bytes.
        study: Name for errors; never taken from the file.
        metadata: CT-RATE's row: slope and intercept for raw files, geometry for files with a
            blank header (axes then run left, posterior, superior, as in CT-RATE).
        intensity: Whether slope and intercept still have to be applied. DICOM slices state their
            own, which are always applied.
        prefer: Which affine to believe when sform and qform disagree; None refuses.
        series: Number or SeriesInstanceUID of the DICOM series to read; None chooses by
            `dicom_series.RULE`.
        max_tilt_degrees: Slices that are not stacked along their normal (gantry tilt) are set
            upright up to this angle, and refused beyond; below half a degree nothing is done.

    Returns:
        The volume in RAS orientation within [−1024, 3071] HU, its third axis normal to its slices;
        notes.

    Raises:
        CtscribeError: What is wrong, in one sentence.
    """
    if _holds_dicom(path, study, series):
        values, affine, notes = read_dicom(path, study, series)
        kind, rescale, intensity, is_first_release = "DICOM", None, "hu", False
    else:
        values, header, notes = read_nifti(path, study)
        affine, geometry_notes = _locate(header, metadata, study, prefer)
        notes |= geometry_notes
        kind, rescale, is_first_release = "NIfTI", _rescale(metadata), header.is_blank
    check_affine(affine, study)
    notes |= _check_content(values, study)
    hu, hu_notes = to_hu(values, rescale, intensity, study)
    notes |= hu_notes | _check_release(hu_notes, rescale, is_first_release)
    stored = CTVolume(hu, affine)
    volume, tilt_notes = _upright(to_ras(stored), max_tilt_degrees, study)
    _check_depth(volume, study)
    notes |= tilt_notes | note_unusual(volume)
    return volume, notes | note_source(volume, kind, stored.orientation)


def _check_release(
    hu_notes: Notes, rescale: tuple[float, float] | None, is_first_release: bool
) -> Notes:
    """``W_RELEASE`` where CT-RATE's values are raw and the header not blank, or the reverse."""
    is_raw = hu_notes.details["intensity"] == "raw"
    return note_if(rescale is not None and is_raw != is_first_release, "W_RELEASE")


def read_grid(
    path: Path,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    prefer: Prefer | None = None,
    series: str | None = None,
    max_tilt_degrees: float = 30.0,
) -> tuple[CTVolume, Notes]:
    """Reads only headers: the grid of a source's voxels, with the checks of `read_volume`.

    Arguments are those of `read_volume`.

    Returns:
        A volume in RAS orientation with the grid that `read_volume` gives; its voxels are all 0 and
        take no memory. Notes.

    Raises:
        CtscribeError: What is wrong with the header, in one sentence.
    """
    shape: tuple[int, ...]
    if _holds_dicom(path, study, series):
        shape, affine, notes = read_dicom_grid(path, study, series)
    else:
        header = read_nifti_header(path, study)
        affine, geometry_notes = _locate(header, metadata, study, prefer)
        shape, notes = header.shape, note(*header.warnings) | geometry_notes
    volume, grid_notes = set_grid(shape, affine, study, max_tilt_degrees)
    return volume, notes | grid_notes


def set_grid(
    shape: tuple[int, ...], affine: Affine, study: str, max_tilt_degrees: float = 30.0
) -> tuple[CTVolume, Notes]:
    """The grid of voxels with this shape and affine, as `read_grid` returns it.

    Raises:
        CtscribeError: What is wrong with the grid, in one sentence.
    """
    notes = Notes()
    check_affine(affine, study)
    volume = to_ras(CTVolume(np.broadcast_to(np.int16(0), shape), affine))
    plan = plan_upright(volume.shape_xyz, volume.affine, max_tilt_degrees, study)
    if plan is not None:
        notes |= note("W_TILT", tilt_degrees=round(plan.tilt_degrees, 2))
        volume = CTVolume(np.broadcast_to(np.int16(0), plan.shape_xyz), plan.affine)
    _check_depth(volume, study)
    return volume, notes | note_unusual(volume)


def _locate(
    header: NiftiHeader, metadata: VolumeMetadata | None, study: str, prefer: Prefer | None
) -> tuple[Affine, Notes]:
    """The affine of a NIfTI file's voxels, RAS+ mm, from its header or CT-RATE's metadata.

    Files of CT-RATE's first release have blank headers; their axes run left, posterior, superior.

    Raises:
        CtscribeError: ``E_NO_GEOMETRY``, ``E_NO_SPACING``, ``E_ORIENTATION``, or as
            `choose_affine`.
    """
    spacing = metadata.spacing_mm if metadata else None
    affine = None if metadata and header.is_blank else choose_affine(header, study, prefer)
    if affine is not None:
        differs = spacing is not None and not np.allclose(spacing_of(affine), spacing, rtol=0.01)
        notes = note_if(differs, "W_SPACING_METADATA")
        return affine, notes | note_if(pixdim_differs(header, affine), "W_PIXDIM")
    if metadata is None:
        raise CtscribeError(
            "E_NO_GEOMETRY",
            f"{study} must say where its voxels lie, but its header sets neither sform nor qform",
        )
    if spacing is None:
        raise CtscribeError(
            "E_NO_SPACING",
            f"{study} must have XYSpacing and ZSpacing in its metadata because its header is "
            "blank, but one is empty",
        )
    axes = metadata.orientation
    if axes is not None and not np.allclose(axes, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), atol=0.01):
        raise CtscribeError(
            "E_ORIENTATION",
            f"{study} must lie with its axes left, posterior, superior because its header is "
            "blank, but its metadata say otherwise",
        )
    position = metadata.position_lps_mm
    affine = lps_affine(spacing, position or (0.0, 0.0, 0.0))
    return affine, note_if(position is None, "W_NO_POSITION")


def _upright(volume: CTVolume, max_tilt_degrees: float, study: str) -> tuple[CTVolume, Notes]:
    plan = plan_upright(volume.shape_xyz, volume.affine, max_tilt_degrees, study)
    if plan is None:
        return volume, Notes()
    return set_upright(volume, plan), note("W_TILT", tilt_degrees=round(plan.tilt_degrees, 2))


def _holds_dicom(path: Path, study: str, series: str | None) -> bool:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise CtscribeError(
                "E_READ", f"{study} must be a file or folder, but is a pipe or device"
            )
        holds_dicom = is_dicom(path)
    except OSError as error:
        raise not_readable(study, error) from error
    if series is not None and not holds_dicom:
        raise CtscribeError(
            "E_OPTION", f"{study} must be DICOM where a series is asked for, but is another file"
        )
    return holds_dicom


def _check_depth(volume: CTVolume, study: str) -> None:
    if volume.shape_xyz[2] < MIN_SLICES:
        raise CtscribeError(
            "E_TOO_FEW_SLICES",
            f"{study} must have at least {MIN_SLICES} axial slices, but has {volume.shape_xyz[2]}",
        )


def _rescale(metadata: VolumeMetadata | None) -> tuple[float, float] | None:
    if metadata is None or metadata.slope is None or metadata.intercept is None:
        return None
    return metadata.slope, metadata.intercept


def _check_content(values: VolumeHu, study: str) -> Notes:
    """Refuses a constant volume; notes five or more neighbouring slices that are equal."""
    first, slices = values[0, 0, 0], values.T
    if all((plane == first).all() for plane in slices):
        raise CtscribeError(
            "E_NO_CONTENT", f"{study} must show something, but each voxel has the value {first}"
        )
    are_equal = (
        np.array_equal(lower[::16, ::16], upper[::16, ::16]) and np.array_equal(lower, upper)
        for lower, upper in pairwise(slices)
    )
    runs = [1 + len([*run]) for equal, run in groupby(are_equal) if equal]
    return note_if(max(runs, default=0) >= _REPEATED_SLICES, "W_REPEATED_SLICES")


def fingerprint(path: Path, study: str) -> dict[str, int]:
    """Total size of a source's files and their latest change, by which a change is noticed.

    Raises:
        CtscribeError: ``E_READ``, naming the study.
    """
    try:
        states = [file.stat() for file in _files_of(path)]
    except OSError as error:
        raise not_readable(study, error) from error
    return {
        "source_bytes": sum(state.st_size for state in states),
        "source_mtime_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def sha256_of_source(path: Path) -> str:
    """SHA-256 of a file's bytes; for several files, of their sorted hashes, one per line.

    File names are left out: they may identify a patient, and renaming changes no voxel.
    """
    hashes = sorted(sha256_of_file(file) for file in _files_of(path))
    if len(hashes) == 1 and not (path.is_dir() or is_file_list(path)):
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _files_of(path: Path) -> list[Path]:
    """The file, both of a NIfTI pair, or all of a folder or list, sorted."""
    if is_file_list(path):
        return sorted(read_file_list(path))
    if path.is_dir():
        return [file for file in files_below(path) if file.is_file()]
    return pair_of(path)
