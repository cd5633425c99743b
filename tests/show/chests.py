"""Healthy chests, and some with a nodule."""

from ctscribe.base.rows import StudyRow
from tests.studies import study_row

NODULE = "There is a nodule of 7 mm in the right upper lobe."


def chest(patient: str, ill: bool) -> StudyRow:
    texts = {"findings": NODULE, "impression": "Lung nodule."}
    indices = (35, 25)
    return study_row(f"{patient}_a_1.nii.gz", slice_indices=indices, **(texts if ill else {}))
