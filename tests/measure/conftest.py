"""Small made-up data sets; the words are ours."""

import random
from collections.abc import Callable

import pytest

from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.text.findings import FINDINGS
from tests.studies import study_row

NORMAL = "The heart is of normal size. No pleural effusion is seen."
SENTENCES = {
    "Hiatal hernia": "A sliding hiatal hernia is seen.",
    "Lung nodule": "There is a 5 mm nodule in the left lung.",
    "Pleural effusion": "A small pleural effusion lies on the right.",
    "Emphysema": "Emphysema is present in both lungs.",
    "Consolidation": "There is consolidation in the right lower lobe.",
}

MakeStudies = Callable[..., list[StudyRow]]
MakePrediction = Callable[..., PredictionRow]


def _study(number: int, findings: list[str], split: str) -> StudyRow:
    return study_row(
        f"{split}_{number}_a_1.nii.gz",
        findings=" ".join([NORMAL, *(SENTENCES[finding] for finding in findings)]),
        impression=f"Case {number % 7} of its kind.",
        labels=tuple(int(finding in findings) for finding in FINDINGS),
        sex="F" if number % 2 else "M",
        age_years=float(20 + number % 60),
    )


@pytest.fixture
def make_studies() -> MakeStudies:
    """Studies with zero to three findings and the reports that state them."""

    def make(count: int, split: str = "valid") -> list[StudyRow]:
        rng = random.Random(split)
        names = list(SENTENCES)
        return [
            _study(number, rng.sample(names, k=rng.choice([0, 0, 1, 2, 3])), split)
            for number in range(count)
        ]

    return make


@pytest.fixture
def make_prediction() -> MakePrediction:
    """What a system wrote about a study; by default the reference itself."""

    def make(study: StudyRow, text: str | None = None) -> PredictionRow:
        return PredictionRow(
            scan_id=study.scan_id,
            patient_id=study.patient_id,
            volume_name=study.volume_name,
            findings=study.findings if text is None else text,
            impression=study.impression if text is None else "",
            num_tokens=1,
            finished=True,
        )

    return make
