import pytest

from ctscribe.base.types import Labels
from ctscribe.show.marked_reports import Comparison, compare_reports, find_worst
from ctscribe.text.findings import FINDINGS

REFERENCE = "Emphysema is seen in both lungs. The heart is normal. A nodule is seen in the lung."
PREDICTION = "Pleural effusion is seen on the left. A nodule is seen in the lung."


def labels(*findings: str) -> Labels:
    return tuple(int(finding in findings) for finding in FINDINGS)


def test_missing_and_wrong_findings_are_marked_where_they_stand() -> None:
    comparison = compare_reports("s", reference=REFERENCE, prediction=PREDICTION, labels=None)
    assert comparison.missing == ("Emphysema",)
    assert comparison.wrong == ("Pleural effusion",)
    assert [sentence.marked for sentence in comparison.reference] == [("Emphysema",), (), ()]
    assert [sentence.marked for sentence in comparison.prediction] == [("Pleural effusion",), ()]
    assert comparison.f1 == pytest.approx(2 / (2 + 2))


def test_given_labels_outrank_the_text() -> None:
    true = labels("Lung nodule", "Cardiomegaly")
    comparison = compare_reports("s", reference=REFERENCE, prediction=PREDICTION, labels=true)
    assert comparison.missing == ("Cardiomegaly",)
    assert not any(sentence.marked for sentence in comparison.reference)


def test_two_normal_reports_agree() -> None:
    text = "The heart is normal."
    comparison = compare_reports("s", reference=text, prediction="", labels=labels())
    assert (comparison.f1, comparison.prediction) == (1.0, ())


def test_the_worst_come_first_and_equals_by_errors_then_name() -> None:
    def study(name: str, f1: float, *wrong: str) -> Comparison:
        return Comparison(name, (), (), (), wrong, f1)

    studies = [study("d", 0.5), study("c", 0.0), study("b", 0.0, "x"), study("a", 0.0)]
    assert [each.study for each in find_worst(studies, 3)] == ["b", "a", "c"]


def test_another_side_and_size_are_told_in_words() -> None:
    comparison = compare_reports(
        "s",
        reference="Effusion on the left. A 4 mm nodule is seen.",
        prediction="Effusion on the right. A 12.5 mm nodule is seen.",
        labels=None,
    )
    assert (comparison.missing, comparison.wrong) == ((), ())
    assert comparison.misplaced == (
        "size of Lung nodule: 12.5, not 4 mm",
        "side of Pleural effusion: right, not left",
    )
