"""Which patients train, which choose the checkpoint, which are scored."""

import hashlib
from collections.abc import Sequence
from typing import Literal

from ctscribe.base.rows import AnyReported
from ctscribe.base.types import SourceSplit

Split = Literal["train", "validation", "test"]


def split_of(patient_id: str, source_split: SourceSplit, validation_fraction: float) -> Split:
    """Split of a patient, by a hash of the id: the same on every machine, for any data set.

    Args:
        patient_id: All volumes of a patient share it, so no patient is in two splits.
        source_split: CT-RATE's own; its validation set is the test split.
        validation_fraction: Expected share of training patients held out for choices.
    """
    if source_split == "valid":
        return "test"
    digest = hashlib.sha256(patient_id.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "validation" if share < validation_fraction else "train"


def studies_of(
    studies: Sequence[AnyReported], split: Split, validation_fraction: float
) -> list[AnyReported]:
    """The studies of one split, in their order."""
    return [
        study
        for study in studies
        if split_of(study.patient_id, study.source_split, validation_fraction) == split
    ]
