from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ctscribe.show.page import DrawnSlices
from ctscribe.show.patient_report import Geometry, PatientReport
from ctscribe.write.draft import FindingRow, Provenance

MakeReport = Callable[..., PatientReport]


@pytest.fixture
def make_report() -> MakeReport:
    """A small report; keyword arguments replace its fields."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 20, 40), dtype=np.uint8)
    report = PatientReport(
        study="case 7",
        findings=("The heart is normal.", "A nodule of 6 mm is seen."),
        impression=("Nodule in the left lung.",),
        labels=(
            FindingRow("Cardiomegaly", "absent", ("The heart is normal.",)),
            FindingRow(
                "Lung nodule", "present", ("A nodule of 6 mm is seen.", "Nodule in the left lung.")
            ),
            FindingRow("Emphysema", "not mentioned"),
        ),
        model_windows=("wide 0/2000",),
        slices=DrawnSlices(
            {"lung −600/1500": images, "soft tissue 40/400": 255 - images},
            (87, 51),
            (-142.5, 12.0),
            (0.5, 2.0),
        ),
        source_kind="DICOM",
        geometry={
            "Source": Geometry((0.84, 0.84, 5.0), (512, 512, 64), "LPS"),
            "As read": Geometry((0.75, 0.75, 1.5), (573, 573, 213), "RAS"),
        },
        warnings=(),
        provenance=Provenance("0.1.0", "tiny", "a1" * 32, "b2" * 32, "2026-01-02 10:30 UTC"),
    )

    def make(**changes: Any) -> PatientReport:  # noqa: ANN401 - any field
        return replace(report, **changes)

    return make
