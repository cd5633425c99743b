"""A DICOM series → Hounsfield units and where they lie.

DICOM's axes (left, posterior, superior) end here; errors name the study as the caller does and
never quote a header.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, VolumeHu
from ctscribe.volume.decoder import Stored
from ctscribe.volume.dicom_files import read_headers
from ctscribe.volume.dicom_geometry import Geometry, Slice, order_slices, same_place, stack_affine
from ctscribe.volume.dicom_pixels import read_stored
from ctscribe.volume.dicom_series import choose_series
from ctscribe.volume.dicom_sources import dicom_files
from ctscribe.volume.notes import Notes, note_if


def read_dicom(path: Path, study: str) -> tuple[VolumeHu, Affine, Notes]:
    """Reads one CT series of a folder or zip archive, chosen as `choose_series` says.

    Slices are ordered by their position along the normal of their plane, whatever their names
    or numbers.

    Args:
        path: A folder, searched with its subfolders, or a zip archive, in both of which files
            that are not DICOM are passed over; or one enhanced (multi-frame) CT file.
        study: Name for errors.

    Returns:
        HU [x, y, z], int16 (float32 where a slope is no whole number); RAS+ affine, sheared
        where the gantry was tilted; notes.

    Raises:
        CtscribeError: What is wrong with the series, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
        series, more = choose_series(headers, study)
        slices, geometry = order_slices(series, study)
        kept, hu = _read_hu(slices, geometry, study)
    affine = stack_affine(kept, geometry, study)
    return hu, affine, others | more | note_if(len(kept) < len(slices), "W_DUPLICATE_SLICE")


def read_dicom_grid(path: Path, study: str) -> tuple[tuple[int, int, int], Affine, Notes]:
    """Reads where the voxels of a series lie, and none of them.

    Args:
        path: See `read_dicom`.
        study: Name for errors.

    Returns:
        Shape (x, y, z), RAS+ affine and notes.

    Raises:
        CtscribeError: What is wrong with the headers, in one sentence.
    """
    with dicom_files(path, study) as files:
        headers, others = read_headers(files, study)
    series, more = choose_series(headers, study)
    slices, geometry = order_slices(series, study)
    kept = slices[:1]
    for one in slices[1:]:
        if not same_place(kept[-1], one, geometry):
            kept.append(one)
    rows, columns = (int(size) for size in geometry.size)
    return (columns, rows, len(kept)), stack_affine(kept, geometry, study), others | more


def _read_hu(slices: list[Slice], geometry: Geometry, study: str) -> tuple[list[Slice], VolumeHu]:
    """Reads the voxels slice by slice, each with its own slope and intercept.

    A slice that repeats another is dropped; two that contradict each other are refused.
    """
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in slices)
    kept: list[Slice] = []
    before: Stored | None = None
    planes = np.empty((0, 0, 0))
    with closing(read_stored(((one.file, one.frame) for one in slices), study)) as stored:
        for one, read in zip(slices, stored, strict=True):
            if before is None:
                # only now, because a header can claim any size
                dtype = np.int16 if whole else np.float32
                planes = np.empty((len(slices), *read.shape), dtype=dtype)
            elif same_place(kept[-1], one, geometry):
                _check_same(kept[-1], before, one, read, study)
                continue
            hu = read * np.float64(one.slope) + one.intercept
            planes[len(kept)] = np.clip(hu, -32768, 32767)
            kept.append(one)
            before = read
    return kept, planes[: len(kept)].T


def _check_same(first: Slice, before: Stored, second: Slice, read: Stored, study: str) -> None:
    same_scale = (first.slope, first.intercept) == (second.slope, second.intercept)
    if not (same_scale and np.array_equal(before, read)):
        raise CtscribeError(
            "E_DUPLICATE_SLICE",
            f"{study} must have one slice per position, but two different ones lie at the same",
        )
