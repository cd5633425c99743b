"""Drafts of scans with a given text, as a writer would hand them over, without a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from ctscribe.base.recipe import read_recipe
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.frames import PreparedVolume
from ctscribe.scan.volume import CTVolume
from ctscribe.text.labeler import find_mentions
from ctscribe.text.sections import split_report, split_sentences
from ctscribe.write.draft import Draft, Provenance, SentenceRow, SliceEvidence, finding_rows
from tests.scans import CHEST

TEXT = (
    "Findings: A nodule of 12 mm is seen in the right upper lobe. No pleural effusion. "
    "Emphysema cannot be excluded.\nImpression: Nodule in the right lung."
)
STUDY, PLACE = "1.2.826.0.1.77", "1.2.826.0.1.78"
IDENTITY = {
    "PatientName": "Müller^Jörg",
    "PatientID": "PLANTED-ID",
    "PatientBirthDate": "19010203",
    "PatientSex": "M",
    "StudyInstanceUID": STUDY,
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "StudyID": "S1",
    "StudyDescription": "Thorax nativ",
    "AccessionNumber": "A-77",
    "ReferringPhysicianName": "Öz^Ayşe",
}
BLOCK_RAS = (slice(100, 112), slice(60, 66), slice(14, 17))
"""Voxels of `with_block` that are bright, along (x, y, z)."""


def with_identity(image: FileDataset, z: int) -> None:
    """Gives a slice what a scanner gives it."""
    image.SpecificCharacterSet = "ISO_IR 192"
    image.FrameOfReferenceUID = PLACE
    for keyword, value in IDENTITY.items():
        setattr(image, keyword, value)


def with_block(volume: CTVolume = CHEST) -> CTVolume:
    """The volume with a block of bone in its right lung's place."""
    hu = volume.hu.copy()
    hu[BLOCK_RAS] = 1500
    return CTVolume(hu, volume.affine)


def draft_of(source: Path, text: str = TEXT, series: str | None = None) -> Draft:
    """A draft in which sentences that state something rest on the slices with bone, boxed."""
    recipe = read_recipe(
        "tiny", ("slices.frame_size_px=[84,84]", "slices.num_slices=8", "volume.spacing_mm=[4,4,4]")
    )
    prepared = prepare_volume(source, recipe.volume, recipe.slices, study="the scan", series=series)
    findings, impression = split_report(text)
    sentences = (*split_sentences(findings), *split_sentences(impression))
    shown = _brightest(prepared)
    rows = tuple(
        SentenceRow(sentence, shown if _states(sentence) else (), not _states(sentence), 1.0, 0.75)
        for sentence in sentences
    )
    labels = tuple(
        replace(row, probability=(number + 0.5) / 18)
        for number, row in enumerate(finding_rows("\n".join((findings, impression))))
    )
    return Draft(
        study="case 7",
        source_kind="DICOM",
        prepared=prepared,
        recipe=recipe,
        provenance=Provenance("0.2.0", "tiny", "a1" * 32, "b2" * 32, "2026-01-02 10:30 UTC"),
        text=text,
        sentences=rows,
        findings=labels,
    )


def _states(sentence: str) -> bool:
    return any(mention.status == "present" for mention in find_mentions(sentence))


def _brightest(prepared: PreparedVolume) -> tuple[SliceEvidence, ...]:
    """The frame with most bone, and a box around it."""
    bone = prepared.frames[..., 0] == 255
    frame = int(bone.sum((1, 2)).argmax())
    rows, columns = np.nonzero(bone[frame])
    if not len(rows):
        rows, columns = np.array([20, 30]), np.array([25, 50])
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return (
        SliceEvidence(frame + 1, prepared.slice_indices[frame], prepared.position_mm[frame], box),
    )
