"""A NIfTI file or DICOM series → one CT volume in Hounsfield units and RAS orientation.

In: a path, and CT-RATE's metadata row where there is one. Out: `CTVolume` and notes, or a
`CtscribeError` that says in one sentence what is wrong.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file
from ctscribe.base.types import Intensity
from ctscribe.scan.dicom import read_dicom, read_dicom_grid
from ctscribe.scan.dicom_sources import is_dicom
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
        path: NIfTI file (either, of a .hdr/.img pair), or the folder or zip archive of a DICOM
            series or one enhanced CT file; told apart by their first bytes.
        study: Name for errors; never taken from the file.
        metadata: CT-RATE's row: slope and intercept for raw files, geometry for files with a
            blank header (axes then run left, posterior, superior, as in CT-RATE).
        intensity: Whether slope and intercept still have to be applied; a DICOM series has its
            own and is always brought to HU.
        prefer: Which affine to believe when sform and qform disagree; None refuses.
        series: Number or SeriesInstanceUID of the DICOM series to read; None chooses by
            `dicom_series.RULE`.
        max_tilt_degrees: Stacks that lean to their slices' normal (gantry tilt) by more than
            half a degree are set upright up to this angle, and refused beyond.

    Returns:
        The volume in RAS orientation within [−1024, 3071] HU, its third axis at right angles to
        its slices; notes.

    Raises:
        CtscribeError: What is wrong, in one sentence.
    """
    if _holds_dicom(path, study, series):
        values, affine, notes = read_dicom(path, study, series)
        kind, rescale, intensity, is_first_release = "DICOM", None, "hu", False
    else:
        values, header, notes = read_nifti(path, study)
        affine, placed = _locate(header, metadata, study, prefer)
        notes |= placed
        kind, rescale, is_first_release = "NIfTI", _rescale(metadata), header.is_blank
    check_affine(affine, study)
    notes |= _check_content(values, study)
    hu, scaled = to_hu(values, rescale, intensity, study)
    if rescale is not None:
        is_raw = scaled.details["intensity"] == "raw"
        notes |= note_if(is_raw != is_first_release, "W_RELEASE")
    stored = CTVolume(hu, affine)
    volume, raised = _upright(to_ras(stored), max_tilt_degrees, study)
    _check_depth(volume, study)
    source = note_source(volume, kind, stored.orientation)
    return volume, notes | scaled | raised | note_unusual(volume) | source


def read_grid(
    path: Path,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    prefer: Prefer | None = None,
    series: str | None = None,
    max_tilt_degrees: float = 30.0,
) -> tuple[CTVolume, Notes]:
    """Reads headers alone: where a source's voxels lie, checked as `read_volume` does.

    Arguments are those of `read_volume`.

    Returns:
        A volume in RAS orientation with the grid that `read_volume` gives, zero throughout and
        without memory of its own, and notes.

    Raises:
        CtscribeError: What is wrong with the header, in one sentence.
    """
    shape: tuple[int, ...]
    if _holds_dicom(path, study, series):
        shape, affine, notes = read_dicom_grid(path, study, series)
    else:
        header = read_nifti_header(path, study)
        affine, placed = _locate(header, metadata, study, prefer)
        shape, notes = header.shape, note(*header.warnings) | placed
    volume, more = set_grid(shape, affine, study, max_tilt_degrees)
    return volume, notes | more


def set_grid(
    shape: tuple[int, ...], affine: Affine, study: str, max_tilt_degrees: float = 30.0
) -> tuple[CTVolume, Notes]:
    """The grid of voxels that lie so, as `read_grid` gives it.

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

    Files of CT-RATE's first release have blank headers and axes left, posterior, superior.

    Raises:
        CtscribeError: ``E_NO_GEOMETRY``, ``E_NO_SPACING``, ``E_ORIENTATION``, or as
            `choose_affine`.
    """
    spacing = metadata.spacing_mm if metadata else None
    affine = None if metadata and header.is_blank else choose_affine(header, study, prefer)
    if affine is not None:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        differs = spacing is not None and not np.allclose(own, spacing, rtol=0.01)
        odd = pixdim_differs(header, affine)
        return affine, note_if(differs, "W_SPACING_METADATA") | note_if(odd, "W_PIXDIM")
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
                "E_READ",
                f"{study} must be a file or folder, but is a pipe or device",
            )
        holds_dicom = is_dicom(path)
    except OSError as error:
        raise CtscribeError(
            "E_READ", f"{study} must be readable, but {error.strerror or error}"
        ) from error
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
    """Refuses a volume of one value; warns where at least five neighbouring slices are equal."""
    first = values[0, 0, 0]
    if all((plane == first).all() for plane in values.T):
        raise CtscribeError(
            "E_NO_CONTENT",
            f"{study} must show something, but each voxel has the value {first}",
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
    return note_if(longest + 1 >= _REPEATED_SLICES, "W_REPEATED_SLICES")


def fingerprint(path: Path, study: str) -> dict[str, int]:
    """What changes when a source does: total size of its files, and the latest time of change.

    Raises:
        CtscribeError: ``E_READ``, naming the study.
    """
    try:
        states = [file.stat() for file in _files_of(path)]
    except OSError as error:
        raise CtscribeError("E_READ", f"{study} must be readable, but {error.strerror}") from error
    return {
        "source_bytes": sum(state.st_size for state in states),
        "source_mtime_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def sha256_of_source(path: Path) -> str:
    """SHA-256 of a file's bytes; of several files, that of their sorted hashes, one per line.

    File names do not enter it: they may tell of a patient, and renaming changes no voxel.
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
        return sorted(file for file in path.rglob("*") if file.is_file())
    return pair_of(path)
