"""A NIfTI file → stored values and where they lie."""

from io import BufferedIOBase
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.spatialimages import HeaderDataError

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Affine, VolumeHu
from ctscribe.scan.inflate import (
    GZIP,
    check_expansion,
    check_room,
    drain,
    ends_in_zeros,
    header_path,
    image_path,
    open_inflated,
    read_into,
)
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.nifti_header import NiftiHeader, read_header
from ctscribe.scan.volume import (
    Notes,
    agree,
    check_affine,
    is_plausible,
    note,
    note_changed,
    note_if,
)


def has_sform(header: NiftiHeader) -> bool:
    """Whether the header sets its sform."""
    return int(header.fields["sform_code"]) > 0


def has_qform(header: NiftiHeader) -> bool:
    """Whether the header sets its qform."""
    return int(header.fields["qform_code"]) > 0


def sform_of(header: NiftiHeader) -> Affine:
    """The sform in mm."""
    return _in_mm(header.fields.get_sform(), header)


def header_affines(header: NiftiHeader, study: str) -> tuple[Affine | None, Affine | None]:
    """The sform and the qform in mm, each None where the header does not set it.

    Raises:
        CtscribeError: ``E_AFFINE`` when the quaternion of a set qform is impossible.
    """
    sform = sform_of(header) if has_sform(header) else None
    if not has_qform(header):
        return sform, None
    try:
        return sform, _in_mm(header.fields.get_qform(), header)
    except (HeaderDataError, ValueError) as error:
        raise CtscribeError(
            "E_AFFINE",
            f"{study} must have a qform that is a rotation, but its quaternion is impossible",
        ) from error


def check_pixdim(header: NiftiHeader, study: str) -> None:
    """Refuses a header that sets an affine beside voxel sizes that are none.

    Readers that go by pixdim would silently take such voxels for 1 mm.

    Raises:
        CtscribeError: ``E_SPACING``.
    """
    pixdim = header.fields["pixdim"][1:4].astype(np.float64)
    usable = np.isfinite(pixdim).all() and (pixdim > 0).all()
    if not usable and (has_sform(header) or has_qform(header)):
        raise CtscribeError(
            "E_SPACING",
            f"{study} must have voxels of positive size in pixdim, but has "
            f"{' x '.join(f'{size:g}' for size in pixdim)}",
        )


def pixdim_differs(header: NiftiHeader, affine: Affine) -> bool:
    """Whether pixdim states other voxels than the affine that was chosen, by over 1 %."""
    pixdim = np.diag([*header.fields["pixdim"][1:4].astype(np.float64), 1.0])
    stated, chosen = (
        np.linalg.norm(one[:3, :3], axis=0) for one in (_in_mm(pixdim, header), affine)
    )
    return not np.allclose(stated, chosen, rtol=0.01)


def _in_mm(affine: Affine, header: NiftiHeader) -> Affine:
    """In the stated unit, unless only millimetres give voxels that a CT can have."""
    scaled = affine.copy()
    with np.errstate(over="ignore"):
        scaled[:3] *= header.mm_per_unit
    return affine if is_plausible(affine) and not is_plausible(scaled) else scaled


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
