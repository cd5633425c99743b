"""What a NIfTI header says of where its voxels lie: sform, qform and pixdim, in mm."""

import numpy as np
from nibabel.spatialimages import HeaderDataError

from ctscribe.errors import CtscribeError
from ctscribe.types import Affine
from ctscribe.volume.geometry import is_plausible
from ctscribe.volume.nifti_header import NiftiHeader


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
