import itertools

import pytest

from ctscribe.measure.baselines import choose_reports, medoid, normal_report
from ctscribe.measure.scans import ScanReport


def report(number: int, text: str, *present: int) -> ScanReport:
    labels = tuple(int(i in present) for i in range(18))
    return ScanReport(f"s{number}", f"p{number}", text, "", labels)


TRAINING = [
    report(
        0,
        "lungs are clear heart normal",
    ),
    report(1, "lungs are clear heart normal"),
    report(2, "lungs are clear heart large", 2),
    report(3, "a nodule in the left lung", 9),
    report(4, "nothing"),
]


def unigram_f1(first: str, second: str) -> tuple[int, int]:
    a, b = first.split(), second.split()
    return sum(min(a.count(w), b.count(w)) for w in set(a)), len(a) + len(b)


def test_the_medoid_is_what_all_pairs_say() -> None:
    def pooled(candidate: ScanReport) -> float:
        pairs = [unigram_f1(candidate.text, other.text) for other in TRAINING]
        return sum(2 * overlap for overlap, _ in pairs) / sum(length for _, length in pairs)

    best = max(TRAINING, key=pooled)
    assert pooled(medoid(TRAINING)) == pytest.approx(pooled(best))


def test_repeated_words_are_clipped() -> None:
    reports = [report(0, "a b c"), report(1, "a b c"), report(2, "a a a a a a a a b c")]
    assert medoid(reports).text == "a b c"


def test_the_normal_report_is_the_commonest_without_findings() -> None:
    assert normal_report(TRAINING).scan_id == "s0"
    assert normal_report([report(0, "x", 1, 2), report(1, "y", 1)]).scan_id == "s1"


def test_choices_do_not_depend_on_the_order_of_the_training_set() -> None:
    references = [report(10, "r", 9), report(11, "r", 2), report(3, "r", 9)]
    first = choose_reports(TRAINING, references, seed=4)
    for order in itertools.islice(itertools.permutations(TRAINING), 0, None, 17):
        assert choose_reports(order, references, seed=4) == first


def test_retrieval_finds_equal_labels_and_never_the_patient() -> None:
    references = [report(10, "r", 9), report(3, "r", 9)]
    chosen = choose_reports(TRAINING, references, seed=0)
    assert chosen["label_retrieval"][0].scan_id == "s3"
    assert chosen["label_retrieval"][1].patient_id != "p3"
    assert all(c.patient_id != "p3" for c in [chosen["other_patient"][1]])
    assert set(chosen) == {"constant_report", "all_normal", "other_patient", "label_retrieval"}


def test_without_training_each_patient_is_answered_from_all_others() -> None:
    again = ScanReport("s9", "p2", "a nodule in the left lung again", "", TRAINING[3].labels)
    references = [*TRAINING, again]  # patient p2 has two scans
    chosen = choose_reports(None, references, seed=0)
    for number, reference in enumerate(references):
        others = [each for each in references if each.patient_id != reference.patient_id]
        assert chosen["constant_report"][number] == medoid(others)
        assert chosen["all_normal"][number] == normal_report(others)
        assert chosen["other_patient"][number] in others
        assert chosen["label_retrieval"][number] in others
