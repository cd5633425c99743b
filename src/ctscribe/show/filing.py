"""Identifiers in a draft's documents: those of the source images, or pseudonyms.

In: a draft, and the images it was read from, with or without identity. Out: the images with the
identifiers that documents may use. Pseudonyms depend on the voxels alone, so the same scan has the
same pseudonym whatever its headers say.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from uuid import NAMESPACE_OID, uuid5

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.source_images import SourceImage, SourceSeries
from ctscribe.write.draft import Draft


def uid_of(*parts: str) -> str:
    """A DICOM UID that is a function of its parts, by a UUID of version 5 (PS3.5, B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(('ctscribe', *parts))).int}"


def pseudonym_of(draft: Draft) -> str | None:
    """Pseudonym of the patient, from the scan's voxels; None for a draft without a scan."""
    return None if draft.prepared is None else f"scan-{_voxels_sha256(draft)[:16]}"


def _voxels_sha256(draft: Draft) -> str:
    assert draft.prepared is not None  # asked before
    hu = draft.prepared.resampling.source.hu
    return hashlib.sha256(f"{hu.shape}".encode() + hu.tobytes()).hexdigest()


def filed(source: SourceSeries, draft: Draft) -> SourceSeries:
    """The images with their own identifiers if these were read, else with pseudonyms.

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
    """Creation time of the draft in UTC, which its documents have as their own."""
    created = datetime.fromisoformat(draft.provenance.created.removesuffix(" UTC"))
    return created.replace(tzinfo=created.tzinfo or UTC).astimezone(UTC)
