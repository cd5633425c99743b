import numpy as np
import pytest

from ctscribe.measure.breakdown import (
    ORDER,
    agreement_scores,
    agreement_statistics,
    nodule_stratum,
    strata_of,
)
from tests.studies import study_row


@pytest.mark.parametrize(
    ("has_nodule", "size_mm", "expected"),
    [
        (False, None, "none"),
        (False, 9.0, "none"),
        (True, None, "unmeasured"),
        (True, 2.0, "< 6 mm"),
        (True, 5.9, "< 6 mm"),
        (True, 6.0, "6–8 mm"),
        (True, 8.0, "6–8 mm"),
        (True, 8.1, "> 8–30 mm"),
        (True, 30.0, "> 8–30 mm"),
        (True, 31.0, "> 30 mm"),
    ],
)
def test_limits_are_fleischners(has_nodule: bool, size_mm: float | None, expected: str) -> None:
    assert nodule_stratum(has_nodule, size_mm) == expected


@pytest.mark.parametrize(
    ("text", "grouping", "stratum"),
    [
        ("A nodule of 2 mm is seen in the left lung.", "tiny nodule", "< 3 mm"),
        ("Sternotomy wires are seen.", "surgery", "post-operative"),
        ("The left upper lobe was removed by lobectomy.", "surgery", "post-operative"),
        ("The lungs are clear.", "surgery", "none stated"),
        ("Artifacts of the pacemaker hide the left chest wall.", "artefact", "metal artefact"),
        ("Metallic clips with artefacts.", "artefact", "metal artefact"),
        ("Motion artifacts. Metallic sutures.", "artefact", "none stated"),
    ],
)
def test_what_the_reference_says_decides(text: str, grouping: str, stratum: str) -> None:
    groups = strata_of([study_row("s", findings=text, impression="")], [text], ["nodule" in text])
    assert groups[grouping] == {stratum: [0]}


def test_strata_come_in_order_and_without_scans_that_lack_the_datum() -> None:
    ages = [80, None, 30, 65, 50]
    names = ["S", None, "G", "P", "G"]
    rows = [
        study_row("s", findings="Clear.", impression="", age_years=age, manufacturer=name)
        for age, name in zip(ages, names, strict=True)
    ]
    groups = strata_of(rows, ["Clear."] * 5, [False] * 5)
    assert list(groups["age"]) == list(ORDER["age"])
    assert groups["scanner"] == {"G": [2, 4], "P": [3], "S": [0]}
    assert "tiny nodule" not in groups


def measured(*pairs: tuple[str, str]) -> dict[str, float]:
    statistics = agreement_statistics(
        predictions=[first for first, _ in pairs], references=[second for _, second in pairs]
    )
    scores = agreement_scores(statistics.sum(axis=0, keepdims=True))
    return {name: float(values[0]) for name, values in scores.items()}


def test_sides_are_compared_where_both_state_the_finding() -> None:
    scores = measured(
        ("Effusion on the right.", "Right-sided effusion."),
        ("Effusion on the left.", "Bilateral effusion."),
        ("Emphysema on the left.", "Effusion on the left."),
        ("No effusion on the left.", "Effusion on the left."),
        ("Effusion.", "Effusion on the left."),
    )
    assert scores["side_agreement"] == 1 / 2


def test_sizes_are_compared_where_both_measure() -> None:
    scores = measured(
        ("A 5 mm nodule in the lung.", "A 6 mm nodule in the lung."),
        ("A 5 mm nodule in the lung.", "A 15 mm nodule in the lung."),
        ("A nodule in the lung.", "A 15 mm nodule in the lung."),
        ("No nodule.", "A 15 mm nodule in the lung."),
    )
    assert scores["nodule_size_within_2_mm"] == 1 / 2
    assert scores["nodule_size_error_mm"] == pytest.approx(5.5)


def test_nothing_to_compare_is_undefined() -> None:
    assert all(np.isnan(value) for value in measured(("Normal.", "Normal.")).values())
