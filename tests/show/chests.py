"""Healthy chests, and some with a nodule."""

from ctscribe.base.rows import StudyRow
from tests.studies import study_of

NODULE = "There is a nodule of 7 mm in the right upper lobe."


def chest(patient: str, ill: bool) -> StudyRow:
    texts = {"findings": NODULE, "impression": "Lung nodule."}
    return study_of(f"{patient}_a", (35, 25), **(texts if ill else {}))
