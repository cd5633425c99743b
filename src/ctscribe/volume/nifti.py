"""A NIfTI file → stored values and where they lie."""

from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine, VolumeHu
from ctscribe.volume.geometry import agree, check_affine
from ctscribe.volume.inflate import (
    GZIP,
    check_expansion,
    check_room,
    drain,
    ends_in_zeros,
    open_inflated,
    read_into,
)
from ctscribe.volume.intensity import AIR_HU
from ctscribe.volume.nifti_affines import check_pixdim, has_sform, header_affines, sform_of
from ctscribe.volume.nifti_header import NiftiHeader, read_header
from ctscribe.volume.nifti_pair import header_path, image_path
from ctscribe.volume.notes import Notes, note, note_changed, note_if

Prefer = Literal["sform", "qform"]
_MAX_NAN_SHARE = 0.001
_LOWEST, _HIGHEST = -32768, 32767
"""What 16 bits hold, and far beyond what CT shows."""


def read_nifti(path: Path, study: str) -> tuple[VolumeHu, NiftiHeader, Notes]:
    """Reads a NIfTI file or .hdr/.img pair of any integer or real type, gzipped or not.

    The header is checked before memory is taken; gzip data are read to their end, so that
    checksum and size hold.

    Args:
        path: The file; of a pair, either.
        study: Name for errors.

    Returns:
        Values [x, y, z], int16 or float32, after the header's own scaling; the header, for
        `choose_affine`; notes.

    Raises:
        CtscribeError: What is wrong with the file, in one sentence.
    """
    stored, header, follows = read_stored(path, study)
    values, repaired = _to_supported(stored, header, study)
    return values, header, note(*header.warnings) | follows | repaired | _misnamed(path)


def read_stored(
    path: Path, study: str, *, stacked: bool = False
) -> tuple[np.ndarray, NiftiHeader, Notes]:
    """Reads a file's values as they are stored, its header, and notes.

    Args:
        path: As in `read_nifti`.
        study: Name for errors.
        stacked: See `read_header`; masks may inflate further than CT does.

    Raises:
        CtscribeError: What is wrong with the file, in one sentence.
    """
    check = check_room if stacked else check_expansion
    with open_inflated(header_path(path), study) as stream:
        header = read_header(stream, study, stacked=stacked)
        if not header.is_pair:
            voxels = path
            check(voxels, header.num_bytes, study)
            stored, left = _read_voxels(stream, header, study)
    if header.is_pair:
        voxels = image_path(header_path(path), study)
        check(voxels, header.num_bytes, study)
        with open_inflated(voxels, study) as stream:
            stream.read(header.offset)
            stored, left = _read_voxels(stream, header, study)
    return stored, header, note_if(left > 0 or ends_in_zeros(voxels), "W_TRAILING")


def read_nifti_header(path: Path, study: str) -> NiftiHeader:
    """Reads a header alone; its file, or its partner, must be able to hold the voxels.

    Raises:
        CtscribeError: What is wrong with the header, in one sentence.
    """
    with open_inflated(header_path(path), study) as stream:
        header = read_header(stream, study)
    voxels = image_path(header_path(path), study) if header.is_pair else path
    check_expansion(voxels, header.num_bytes, study)
    return header


def choose_affine(header: NiftiHeader, study: str, prefer: Prefer | None) -> Affine | None:
    """Sform or qform in mm, RAS+; None where neither is set; when both are, they must agree.

    Raises:
        CtscribeError: ``E_GEOMETRY_CONFLICT``, ``E_AFFINE`` or ``E_SPACING``.
    """
    if prefer == "sform" and has_sform(header):
        chosen: Affine | None = sform_of(header)
    else:
        check_pixdim(header, study)
        sform, qform = header_affines(header, study)
        both = [affine for affine in (sform, qform) if affine is not None]
        for affine in both if not prefer else ():
            check_affine(affine, study)
        if len(both) == 2 and not prefer and not agree(*both):
            raise CtscribeError(
                "E_GEOMETRY_CONFLICT",
                f"{study} must have one geometry, but its sform and qform disagree",
            )
        chosen = qform if sform is None or (prefer == "qform" and qform is not None) else sform
    if chosen is not None:
        check_affine(chosen, study)
    return chosen


def _read_voxels(stream: BufferedIOBase, header: NiftiHeader, study: str) -> tuple[np.ndarray, int]:
    buffer = np.empty(header.num_bytes, dtype=np.uint8)
    filled = read_into(stream, buffer.data)
    if filled < header.num_bytes:
        raise CtscribeError(
            "E_TRUNCATED",
            f"{study} must hold the {header.num_bytes} bytes of voxels that its header promises, "
            f"but holds {filled}",
        )
    left = drain(stream, study)
    return buffer.view(header.dtype).reshape(header.shape, order="F"), left


def _misnamed(path: Path) -> Notes:
    """``W_SUFFIX`` where the name says gzip and the content does not, or the other way round."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return note_if(packed != path.name.lower().endswith(".gz"), "W_SUFFIX")


def _to_supported(stored: np.ndarray, header: NiftiHeader, study: str) -> tuple[VolumeHu, Notes]:
    if not stored.dtype.isnative:
        stored = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    if stored.dtype.kind == "f":
        return _finite(stored, header, study)
    slope, intercept = header.slope, header.intercept
    whole = slope.is_integer() and intercept.is_integer()
    if stored.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        return stored, Notes()
    target: Any = np.int16 if whole else np.float32
    values = np.empty(stored.shape, dtype=target, order="F")
    clipped = 0
    for plane, source in zip(values.T, stored.T, strict=True):
        exact = source * np.float64(slope) + intercept
        if whole:
            clipped += _num_beyond(exact)
            exact = np.clip(exact, _LOWEST, _HIGHEST)
        plane[...] = exact
    return values, note_changed(W_CLIPPED=clipped)


def _finite(stored: np.ndarray, header: NiftiHeader, study: str) -> tuple[VolumeHu, Notes]:
    values = np.empty(stored.shape, dtype=np.float32, order="F")
    missing = clipped = 0
    for plane, source in zip(values.T, stored.T, strict=True):
        holes = ~np.isfinite(source)
        missing += int(holes.sum())
        exact = np.where(holes, 0, source) * np.float64(header.slope) + header.intercept
        clipped += _num_beyond(exact)
        plane[...] = np.where(holes, AIR_HU, np.clip(exact, _LOWEST, _HIGHEST))
    if missing > _MAX_NAN_SHARE * values.size:
        raise CtscribeError(
            "E_NAN",
            f"{study} must have a number in each voxel, but {missing} of {values.size} have none",
        )
    return values, note_changed(W_NAN=missing, W_CLIPPED=clipped)


def _num_beyond(values: np.ndarray) -> int:
    if values.min() >= _LOWEST and values.max() <= _HIGHEST:
        return 0
    return int(np.count_nonzero((values < _LOWEST) | (values > _HIGHEST)))
