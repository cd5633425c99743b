"""A NIfTI-1 or NIfTI-2 header → shape, type, scaling and affine, checked before any voxel is read.

In: the first bytes of a file. Out: `NiftiHeader`, and its affine in RAS+ mm.
"""

from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Literal, final

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.inflate import check_kind
from ctscribe.scan.types import Affine
from ctscribe.scan.volume import (
    MAX_VOXELS,
    affines_agree,
    check_affine,
    is_plausible,
    spacing_of,
)

Prefer = Literal["sform", "qform"]
_SIZES = {
    348: (nib.Nifti1Header, 344, (b"n+1\0", b"ni1\0")),
    540: (nib.Nifti2Header, 4, (b"n+2\0", b"ni2\0")),
}
"""Header size → class, offset of the magic bytes, and these for one file and for a pair."""
_BYTE_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_TYPES = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"},
    **{1024: "i8", 1280: "u8"},
}
"""NIfTI's datatype code → numpy's."""
_MAX_OFFSET_BYTES = 16 << 20
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's code for the unit (none, m, mm, µm) → millimetres."""


@final
@dataclass(frozen=True)
class NiftiHeader:
    """The fields of a file's header, checked.

    Attributes:
        shape: (x, y, z), each at least 2; for a stack of masks as stored.
        is_pair: Whether the voxels are in a separate file.
        dtype: Type of the stored voxels, byte order included.
        offset: Byte offset of the first voxel.
        slope: Slope of the header's scaling, 1 where absent.
        intercept: Intercept of the header's scaling, 0 where absent.
        mm_per_unit: Millimetres per unit of the affine.
        fields: nibabel's header, for its affines.
        warnings: Codes.
    """

    shape: tuple[int, ...]
    is_pair: bool
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    mm_per_unit: float
    fields: Any
    warnings: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the stored voxels once they are inflated."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    @property
    def has_sform(self) -> bool:
        """Whether the header sets its sform."""
        return int(self.fields["sform_code"]) > 0

    @property
    def has_qform(self) -> bool:
        """Whether the header sets its qform."""
        return int(self.fields["qform_code"]) > 0

    @property
    def is_blank(self) -> bool:
        """Whether the affine is not set, or the default one: 1 mm voxels along the axes."""
        if not self.has_sform and not self.has_qform:
            return True
        try:
            affine = self.fields.get_best_affine()
        except (HeaderDataError, ValueError):
            return False
        return bool(np.array_equal(np.abs(affine[:3, :3]), np.eye(3)))


def read_header(stream: BufferedIOBase, study: str, *, stacked: bool = False) -> NiftiHeader:
    """Reads a header up to the first voxel.

    Args:
        stream: At its start.
        study: Name for errors.
        stacked: Whether to accept a stack of masks, with three or four dimensions, instead of one
            volume.

    Raises:
        CtscribeError: ``E_NOT_NIFTI``, ``E_HEADER``, ``E_DIMENSIONS``, ``E_4D``, ``E_TOO_LARGE``
            or ``E_DATATYPE``.
    """
    block = stream.read(348)
    fields, header_size, is_pair = _parse(block, stream, study)
    warnings: list[str] = []
    sizes = _sizes(fields, study)
    shape = _stack(sizes, study) if stacked else _volume(sizes, study, warnings)
    _check_number(shape, study)
    dtype = _dtype(fields, study, warnings)
    offset = _offset(fields, 0 if is_pair else header_size + 4, study)
    if not is_pair:
        _check_extensions(stream.read(offset - header_size), fields.endianness, study)
    slope, intercept = _scaling(fields, warnings)
    unit = int(fields["xyzt_units"]) & 7
    if unit != 2:
        warnings.append("W_UNITS")
    return NiftiHeader(
        shape=shape,
        is_pair=is_pair,
        dtype=dtype,
        offset=offset,
        slope=slope,
        intercept=intercept,
        mm_per_unit=_MM_PER_UNIT.get(unit, 1.0),
        fields=fields,
        warnings=tuple(warnings),
    )


def choose_affine(header: NiftiHeader, study: str, prefer: Prefer | None) -> Affine | None:
    """Sform or qform in mm, RAS+; None where neither is set. Where both are, they must agree.

    Raises:
        CtscribeError: ``E_GEOMETRY_CONFLICT``, ``E_AFFINE`` or ``E_SPACING``.
    """
    if prefer == "sform" and header.has_sform:
        chosen: Affine | None = _in_mm(header.fields.get_sform(), header)
    else:
        _check_pixdim(header, study)
        sform, qform = _affines(header, study)
        both = [affine for affine in (sform, qform) if affine is not None]
        for affine in both if not prefer else ():
            check_affine(affine, study)
        if len(both) == 2 and not prefer and not affines_agree(*both):
            raise CtscribeError(
                "E_GEOMETRY_CONFLICT",
                f"{study} must have one geometry, but its sform and qform disagree",
            )
        chosen = qform if sform is None or (prefer == "qform" and qform is not None) else sform
    if chosen is not None:
        check_affine(chosen, study)
    return chosen


def pixdim_differs(header: NiftiHeader, affine: Affine) -> bool:
    """Whether the voxel sizes in pixdim and in the chosen affine differ by more than 1 %."""
    pixdim = np.diag([*header.fields["pixdim"][1:4].astype(np.float64), 1.0])
    return not np.allclose(spacing_of(_in_mm(pixdim, header)), spacing_of(affine), rtol=0.01)


def _affines(header: NiftiHeader, study: str) -> tuple[Affine | None, Affine | None]:
    """The sform and the qform in mm, each None where the header does not set it.

    Raises:
        CtscribeError: ``E_AFFINE`` when the quaternion of a set qform is impossible.
    """
    sform = _in_mm(header.fields.get_sform(), header) if header.has_sform else None
    if not header.has_qform:
        return sform, None
    try:
        return sform, _in_mm(header.fields.get_qform(), header)
    except (HeaderDataError, ValueError) as error:
        raise CtscribeError(
            "E_AFFINE",
            f"{study} must have a qform that is a rotation, but its quaternion is impossible",
        ) from error


def _check_pixdim(header: NiftiHeader, study: str) -> None:
    """Refuses a header whose pixdim holds no positive sizes although it sets an affine.

    Readers that go by pixdim would silently assume voxels of 1 mm.

    Raises:
        CtscribeError: ``E_SPACING``.
    """
    pixdim = header.fields["pixdim"][1:4].astype(np.float64)
    usable = np.isfinite(pixdim).all() and (pixdim > 0).all()
    if not usable and (header.has_sform or header.has_qform):
        raise CtscribeError(
            "E_SPACING",
            f"{study} must have voxels of positive size in pixdim, but has "
            f"{' x '.join(f'{size:g}' for size in pixdim)}",
        )


def _in_mm(affine: Affine, header: NiftiHeader) -> Affine:
    """Scales by the stated unit, unless voxel sizes are plausible only as millimetres."""
    scaled = affine.copy()
    with np.errstate(over="ignore"):
        scaled[:3] *= header.mm_per_unit
    return affine if is_plausible(affine) and not is_plausible(scaled) else scaled


def _parse(block: bytes, stream: BufferedIOBase, study: str) -> tuple[Any, int, bool]:
    """The header's fields, its size in bytes, and whether the voxels are in a separate file."""
    for endianness, byte_order in _BYTE_ORDERS.items():
        size = int.from_bytes(block[:4], byte_order)
        if size not in _SIZES or len(block) < 348:
            continue
        header_class, place, (alone, paired) = _SIZES[size]
        block += stream.read(size - 348)
        found = block[place : place + 4]
        if found in (alone, paired) and len(block) == size:
            fields = header_class(block, endianness=endianness, check=False)
            _set_handedness(fields)
            return fields, size, found == paired
        break
    check_kind(block[:4], study)
    raise CtscribeError("E_NOT_NIFTI", f"{study} must be a NIfTI file, but does not begin as one")


def _set_handedness(fields: Any) -> None:  # noqa: ANN401
    """Makes pixdim[0] −1 where it is negative, else 1, as the NIfTI reference library does."""
    handedness = fields["pixdim"][0]
    if np.isfinite(handedness):
        fields["pixdim"][0] = -1 if handedness < 0 else 1


def _sizes(fields: Any, study: str) -> list[int]:  # noqa: ANN401
    dims = [int(size) for size in fields["dim"]]
    count, sizes = dims[0], dims[1 : 1 + max(0, min(dims[0], 7))]
    if not 1 <= count <= 7 or any(size < 1 for size in sizes):
        raise CtscribeError(
            "E_DIMENSIONS",
            f"{study} must have three dimensions of at least 1 voxel, but its header says {dims}",
        )
    return sizes


def _volume(sizes: list[int], study: str, warnings: list[str]) -> tuple[int, int, int]:
    if any(size > 1 for size in sizes[3:]):
        raise CtscribeError(
            "E_4D",
            f"{study} must be one volume, but holds {int(np.prod(sizes[3:], dtype=object))} of "
            "them (phases or channels)",
        )
    if len(sizes) > 3:
        warnings.append("W_4D")
    x, y, z = (*sizes, 1, 1)[:3]
    if min(x, y, z) < 2:
        raise CtscribeError(
            "E_TOO_FEW_SLICES", f"{study} must be a volume, but has {x} x {y} x {z} voxels"
        )
    return x, y, z


def _stack(sizes: list[int], study: str) -> tuple[int, ...]:
    if len(sizes) not in (3, 4):
        raise CtscribeError(
            "E_DIMENSIONS",
            f"{study} must have three dimensions, or four with one mask per finding, but its "
            f"header says {len(sizes)}",
        )
    return tuple(sizes)


def _check_number(shape: tuple[int, ...], study: str) -> None:
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise CtscribeError(
            "E_TOO_LARGE",
            f"{study} must have at most {MAX_VOXELS} voxels, but its header says "
            f"{' x '.join(map(str, shape))}",
        )


def _dtype(fields: Any, study: str, warnings: list[str]) -> np.dtype[Any]:  # noqa: ANN401
    code = int(fields["datatype"])
    if code not in _TYPES:
        known = {1: "bits", 32: "complex numbers", 128: "RGB colours", 2304: "RGBA colours"}
        raise CtscribeError(
            "E_DATATYPE",
            f"{study} must hold whole or real numbers, but holds "
            f"{known.get(code, f'datatype {code}')}",
        )
    dtype = np.dtype(_TYPES[code]).newbyteorder(fields.endianness)
    if int(fields["bitpix"]) != dtype.itemsize * 8:
        warnings.append("W_BITPIX")
    return dtype


def _offset(fields: Any, least: int, study: str) -> int:  # noqa: ANN401
    offset = float(fields["vox_offset"])
    if not (least <= offset <= _MAX_OFFSET_BYTES and offset.is_integer()):
        raise CtscribeError(
            "E_HEADER",
            f"{study} must have its first voxel after the header, but the header places it at "
            f"byte {offset:g}",
        )
    return int(offset)


def _check_extensions(block: bytes, endianness: str, study: str) -> None:
    at = 4
    has_extensions = len(block) > 4 and block[0] != 0
    while has_extensions and at < len(block):
        size = int.from_bytes(block[at : at + 4], _BYTE_ORDERS[endianness])
        if size < 16 or at + size > len(block):
            raise CtscribeError(
                "E_HEADER",
                f"{study} must have header extensions that end before its voxels, but one claims "
                f"{size} bytes",
            )
        at += size


def _scaling(fields: Any, warnings: list[str]) -> tuple[float, float]:  # noqa: ANN401
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if np.isnan(slope) and np.isnan(intercept):
        return 1.0, 0.0
    if slope == 0 and intercept == 0:
        return 1.0, 0.0
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        warnings.append("W_SLOPE")
        return 1.0, 0.0
    return slope, intercept
