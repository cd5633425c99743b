import numpy as np
import pytest

from ctscribe.measure.breakdown import agreement_scores, agreement_statistics


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
