"""Studies made up on the spot."""

import numpy as np
import pytest

from ctscribe.base.rows import StudyRow
from tests.studies import study_row


@pytest.fixture
def cohort() -> list[StudyRow]:
    """60 patients with one to three volumes each; labels spread over all distances."""
    rng = np.random.default_rng(1)
    studies = []
    for patient in range(60):
        labels = tuple(int(bit) for bit in rng.random(18) < rng.random())
        for volume in range(1 + patient % 3):
            name = f"train_{patient}_{'abc'[volume]}_1.nii.gz"
            studies.append(study_row(name, labels=labels))
    return studies
