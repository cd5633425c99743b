"""A NIfTI file → the values of its voxels, and its header.

In: a .nii or .hdr/.img pair, gzipped or not. Out: int16 or float32 [x, y, z], and `NiftiHeader`.
"""

from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.inflate import GZIP, check_size, drain, ends_in_zeros, open_inflated, read_into
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.nifti_header import NiftiHeader, read_header
from ctscribe.scan.types import VolumeHu
from ctscribe.scan.volume import Notes, note, note_changed, note_if

_MAX_NAN_SHARE = 0.001
_LOWEST, _HIGHEST = -32768, 32767
"""Limits of int16, far beyond what CT shows."""


def read_nifti(path: Path, study: str) -> tuple[VolumeHu, NiftiHeader, Notes]:
    """Reads a NIfTI file or .hdr/.img pair of any integer or real type, gzipped or not.

    The header is checked before memory is allocated. gzip data are read to their end, which
    verifies their checksum and size.

    Args:
        path: The file; either one of a pair.
        study: Name for errors.

    Returns:
        Values [x, y, z], int16 or float32, after the header's own scaling; the header, for
        `choose_affine`; notes.

    Raises:
        CtscribeError: What is wrong with the file, in one sentence.
    """
    stored, header, trailing = read_stored(path, study)
    values, repaired = _to_supported(stored, header, study)
    return values, header, note(*header.warnings) | trailing | repaired | _misnamed(path)


def read_nifti_header(path: Path, study: str) -> NiftiHeader:
    """Reads only the header, and checks that the file or its partner can hold the voxels.

    Raises:
        CtscribeError: What is wrong with the header, in one sentence.
    """
    with open_inflated(_header_path(path), study) as stream:
        header = read_header(stream, study)
    _voxels_path(path, header, study)
    return header


def read_stored(
    path: Path, study: str, *, stacked: bool = False
) -> tuple[np.ndarray, NiftiHeader, Notes]:
    """Reads a file's values as they are stored, its header, and notes.

    A stack of masks (``stacked``, see `read_header`) may have a higher gzip ratio than CT.

    Raises:
        CtscribeError: What is wrong with the file, in one sentence.
    """
    with open_inflated(_header_path(path), study) as stream:
        header = read_header(stream, study, stacked=stacked)
        voxels = _voxels_path(path, header, study, is_mask=stacked)
        if not header.is_pair:
            stored, left = _read_voxels(stream, header, study)
    if header.is_pair:
        with open_inflated(voxels, study) as stream:
            stream.read(header.offset)
            stored, left = _read_voxels(stream, header, study)
    return stored, header, note_if(left > 0 or ends_in_zeros(voxels), "W_TRAILING")


def _header_path(path: Path) -> Path:
    """The .hdr beside a given .img, else the path itself."""
    return _partner(path, ".img", ".hdr") or path


def _voxels_path(path: Path, header: NiftiHeader, study: str, *, is_mask: bool = False) -> Path:
    """The file with the voxels, which must be large enough for them.

    Raises:
        CtscribeError: ``E_NIFTI_PAIR`` for a .hdr without its .img, or as `check_size`.
    """
    found = _partner(_header_path(path), ".hdr", ".img") if header.is_pair else path
    if found is None:
        raise CtscribeError(
            "E_NIFTI_PAIR",
            f"{study} must have its .img file beside its .hdr file, but has none of that name",
        )
    check_size(found, header.num_bytes, study, is_mask=is_mask)
    return found


def pair_of(path: Path) -> list[Path]:
    """Header and voxels of a .hdr/.img pair, or the one file."""
    header = _header_path(path)
    image = _partner(header, ".hdr", ".img")
    return [header] if image is None else [header, image]


def _partner(path: Path, own: str, other: str) -> Path | None:
    packed = path.name.lower().endswith(".gz")
    stem = path.with_suffix("") if packed else path
    if stem.suffix.lower() != own:
        return None
    wanted = other.upper() if stem.suffix.isupper() else other
    names = (stem.with_suffix(wanted), stem.with_suffix(f"{wanted}.gz"))
    return next((name for name in names if name.is_file()), None)


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
    """Scales stored values and clips them to 16 bits; int16 if all are whole, else float32."""
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
    """Scales real numbers; NaN and infinity, at most a thousandth of the voxels, become air."""
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
