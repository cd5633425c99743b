"""Where a NIfTI file's voxels lie: by its header, or by CT-RATE's metadata where it is blank."""

import numpy as np
from nibabel.spatialimages import HeaderDataError

from ctscribe.errors import CtscribeError
from ctscribe.reports.ct_rate_cells import VolumeMetadata
from ctscribe.types import Affine
from ctscribe.volume.geometry import lps_affine
from ctscribe.volume.nifti import Prefer, choose_affine
from ctscribe.volume.nifti_affines import has_qform, has_sform, pixdim_differs
from ctscribe.volume.nifti_header import NiftiHeader
from ctscribe.volume.notes import Notes, note_if


def locate(
    header: NiftiHeader, metadata: VolumeMetadata | None, study: str, prefer: Prefer | None
) -> tuple[Affine, Notes]:
    """The affine of a file's voxels, RAS+ mm.

    Args:
        header: Of the file.
        metadata: CT-RATE's row; geometry for files of its first release, whose headers are
            blank (axes then run left, posterior, superior).
        study: Name for errors.
        prefer: See `choose_affine`.

    Raises:
        CtscribeError: ``E_NO_GEOMETRY``, ``E_NO_SPACING``, ``E_ORIENTATION``, or as
            `choose_affine`.
    """
    spacing = metadata.spacing_mm if metadata else None
    affine = None if metadata and is_blank(header) else choose_affine(header, study, prefer)
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


def is_blank(header: NiftiHeader) -> bool:
    """Whether no affine is set, or only the default one of 1 mm voxels along the axes."""
    if not has_sform(header) and not has_qform(header):
        return True
    try:
        affine = header.fields.get_best_affine()
    except (HeaderDataError, ValueError):
        return False
    return bool(np.array_equal(np.abs(affine[:3, :3]), np.eye(3)))
