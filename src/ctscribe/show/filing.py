"""Under whose name and which identifiers a draft's documents are filed.

In: a draft, and the images it was read from with or without their identity. Out: the same images
under names that documents may bear: the source's own, or new ones that follow from the voxels
alone, so that the same scan has the same pseudonym whatever its headers say.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from uuid import NAMESPACE_OID, uuid5

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.source_images import SourceImage, SourceSeries
from ctscribe.write.draft import Draft


def uid_of(*parts: str) -> str:
    """A DICOM UID, always the same for the same parts: a UUID of version 5 (PS3.5, B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(('ctscribe', *parts))).int}"


def pseudonym_of(draft: Draft) -> str | None:
    """What a patient without a name is called, after the scan's voxels; None without any."""
    return None if draft.prepared is None else f"scan-{_voxels_sha256(draft)[:16]}"


def _voxels_sha256(draft: Draft) -> str:
    assert draft.prepared is not None  # asked before
    hu = draft.prepared.resampling.source.hu
    return hashlib.sha256(f"{hu.shape}".encode() + hu.tobytes()).hexdigest()


def filed(source: SourceSeries, draft: Draft) -> SourceSeries:
    """The images as they are where their identity was read, else under new names.

    Raises:
        CtscribeError: ``E_NO_IMAGES`` for a draft of a scan that could not be shown.
    """
    if draft.prepared is None:
        raise CtscribeError(
            "E_NO_IMAGES",
            f"a DICOM SR must be of a scan that could be read whole, but {draft.not_assessable}",
        )
    if source.identity is not None:
        return source
    voxels = _voxels_sha256(draft)
    shared = uid_of("series", voxels), uid_of("frame of reference", voxels)

    def renamed(one: SourceImage) -> SourceImage:
        return replace(one, uids=(uid_of("image", voxels, str(one.file)), *shared))

    identity = {
        "PatientID": f"{pseudonym_of(draft)}",
        "StudyInstanceUID": uid_of("study", voxels),
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "No identifier of a header was used; names follow from voxels.",
    }
    return replace(source, images=tuple(map(renamed, source.images)), identity=identity)


def written_at(draft: Draft) -> datetime:
    """When the draft was made, in UTC: the only time that its documents tell of themselves."""
    created = datetime.fromisoformat(draft.provenance.created.removesuffix(" UTC"))
    return created.replace(tzinfo=created.tzinfo or UTC).astimezone(UTC)
