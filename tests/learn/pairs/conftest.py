"""Studies made up on the spot."""

from collections.abc import Callable

import numpy as np
import pytest

from ctscribe.base.rows import StudyRow

MakeStudy = Callable[..., StudyRow]


@pytest.fixture
def make_study() -> MakeStudy:
    def make(
        name: str,
        labels: tuple[int, ...] | None = (0,) * 18,
        patient: str | None = None,
        manufacturer: str | None = None,
        report: str = "Trachea and both main bronchi are open.",
    ) -> StudyRow:
        return StudyRow(
            volume_name=name,
            patient_id=patient or name,
            scan_id=name,
            source_split="train",
            findings=report,
            impression=report and "Normal.",
            labels=labels,
            manufacturer=manufacturer,
            spacing_mm=(1, 1, 1),
            shape_xyz=(28, 28, 8),
            slice_indices=(7, 5, 3, 1),
            position_mm=(7.0, 5.0, 3.0, 1.0),
            frame_to_ras=tuple(map(tuple, np.eye(4).tolist())),
        )

    return make


@pytest.fixture
def cohort(make_study: MakeStudy) -> list[StudyRow]:
    """60 patients with one to three volumes each; labels spread over all distances."""
    rng = np.random.default_rng(1)
    studies = []
    for patient in range(60):
        labels = tuple(int(bit) for bit in rng.random(18) < rng.random())
        for volume in range(1 + patient % 3):
            name = f"train_{patient}_{'abc'[volume]}_1.nii.gz"
            studies.append(make_study(name, labels, patient=f"train_{patient}"))
    return studies
