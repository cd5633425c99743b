from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.types import Labels
from ctscribe.measure.clinical import (
    clinical_scores,
    clinical_signature,
    clinical_statistics,
    finding_counts,
    finding_scores,
)

LABELS = st.lists(
    st.lists(st.sampled_from([0, 1]), min_size=18, max_size=18).map(tuple), min_size=2, max_size=9
)


def at(*indices: int) -> Labels:
    return tuple(int(index in indices) for index in range(18))


def score(predictions: Sequence[Labels], references: Sequence[Labels]) -> dict[str, float]:
    totals = clinical_statistics(predictions=predictions, references=references).sum(
        axis=0, keepdims=True
    )
    return {name: float(values[0]) for name, values in clinical_scores(totals).items()}


def test_the_published_crg_example() -> None:
    scores = score([at(9, 11), at(12)], [at(9, 10), at(12)])
    assert scores["crg"] == pytest.approx(0.5789473684)


def test_every_metric_on_a_case_counted_by_hand() -> None:
    # Scan 1: one hit, one miss, one false alarm. Scan 2: one hit. Scan 3: nothing, rightly.
    scores = score([at(9, 11), at(12), at()], [at(9, 10), at(12), at()])
    assert scores == pytest.approx(
        {
            "coverage": 2 / 3,
            "coverage_macro": 2 / 3,
            "coverage_per_report": (0.5 + 1) / 2,
            "precision": 2 / 3,
            "precision_macro": 2 / 3,
            "f1": 4 / 6,
            "f1_macro": 2 / 3,
            "f1_weighted": 2 / 3,
            "f1_per_report": (0.5 + 1 + 1) / 3,
            "label_accuracy": 52 / 54,
            "exact_match": 2 / 3,
            "crg": 1 / (3 - 2 * (2 / 3 - 1 / 51)),
        }
    )


def test_weighted_f1_counts_common_findings_more_and_those_nobody_has_not_at_all() -> None:
    # F1 of finding 0: 4/5 of three; of finding 1: 0 of one. Finding 2 is only alarmed falsely.
    scores = score([at(0), at(0, 2), at()], [at(0), at(0, 1), at(0)])
    assert scores["f1_weighted"] == pytest.approx((4 / 5 * 3 + 0 * 1) / 4)
    assert scores["f1_macro"] == pytest.approx((4 / 5 + 0) / 2)
    assert scores["f1_per_report"] == pytest.approx((1 + 2 / 4 + 0) / 3)


def test_a_false_alarm_about_a_scan_without_findings_has_a_report_f1_of_0() -> None:
    scores = score([at(3), at()], [at(), at()])
    assert scores["f1_per_report"] == 1 / 2
    assert np.isnan(scores["f1_weighted"])


@given(LABELS)
def test_perfect_labels_score_one(labels: list[Labels]) -> None:
    if not any(map(any, labels)):
        return
    scores = score(labels, labels)
    assert all(value == pytest.approx(1) for value in scores.values())


@given(LABELS, st.sampled_from([0, 1]))
def test_saying_the_same_to_everyone_gives_a_third(labels: list[Labels], said: int) -> None:
    present = sum(map(sum, labels))
    if present in (0, 18 * len(labels)):
        return
    blind = [(said,) * 18] * len(labels)
    assert score(blind, labels)["crg"] == pytest.approx(1 / 3)


def test_without_findings_coverage_is_undefined_and_accuracy_is_not() -> None:
    scores = score([at(), at(3)], [at(), at()])
    assert np.isnan(scores["coverage"])
    assert np.isnan(scores["crg"])
    assert scores["label_accuracy"] == 35 / 36
    assert scores["precision"] == 0


def test_macro_scores_of_all_findings_count_those_that_are_absent() -> None:
    predictions, references = [at(0, 1), at(0)], [at(0), at(0, 2)]
    totals = clinical_statistics(predictions=predictions, references=references)
    sums = totals.sum(axis=0, keepdims=True)
    present, of_all = clinical_scores(sums), clinical_scores(sums, macro_of_all=True)
    # Finding 0 is right twice, finding 1 a false alarm, finding 2 missed, the others absent.
    assert present["f1_macro"][0] == 1 / 2
    for metric in ("coverage_macro", "precision_macro", "f1_macro"):
        assert of_all[metric][0] == pytest.approx(1 / 18)
        assert "over all 18 findings" in clinical_signature(metric, "x", 2, macro_of_all=True)
    others = set(present) - {"coverage_macro", "precision_macro", "f1_macro"}
    assert {name: present[name][0] for name in others} == {name: of_all[name][0] for name in others}
    nothing = clinical_statistics(predictions=[at()], references=[at()])
    assert clinical_scores(nothing, macro_of_all=True)["f1_macro"][0] == 0


def test_the_table_per_finding_counts_cells() -> None:
    totals = clinical_statistics(predictions=[at(0, 1), at(0)], references=[at(0), at(0, 2)]).sum(
        axis=0, keepdims=True
    )
    counts, scores = finding_counts(totals), finding_scores(totals)
    assert counts["true_positives"][:3].tolist() == [2, 0, 0]
    assert counts["false_positives"][:3].tolist() == [0, 1, 0]
    assert counts["false_negatives"][:3].tolist() == [0, 0, 1]
    assert counts["true_negatives"][:4].tolist() == [0, 1, 1, 2]
    assert scores["coverage"][0, 0] == 1
    assert np.isnan(scores["coverage"][0, 1])
