"""Constants are chosen on training reports alone, and are the best there."""

import numpy as np
import pytest

from ctscribe.base.types import Labels
from ctscribe.measure.clinical import clinical_scores, clinical_statistics
from ctscribe.measure.constants import best_counts, best_reports, commonest_findings
from ctscribe.measure.language import bleu_4
from ctscribe.measure.scans import ScanReport
from ctscribe.text.findings import FINDINGS

RNG = np.random.default_rng(5)
RATES = np.linspace(0.55, 0.02, len(FINDINGS))[RNG.permutation(len(FINDINGS))]
WORDS = ["lungs", "heart", "aorta", "is", "clear", "normal", "wide", "seen", "no", "nodule", "in"]


def report(number: int, text: str, labels: Labels, patient: int | None = None) -> ScanReport:
    return ScanReport(
        f"s{number:03}", f"p{number if patient is None else patient}", text, "", labels
    )


TRAINING = [
    report(
        number,
        " ".join(RNG.choice(WORDS, RNG.integers(5, 30))),
        tuple(map(int, RNG.random(len(FINDINGS)) < RATES)),
    )
    for number in range(60)
]
NOBODY = [None] * len(TRAINING)


def test_the_number_of_findings_is_the_best_of_all_for_each_metric() -> None:
    true = [each.labels for each in TRAINING]
    scores = [
        clinical_scores(
            clinical_statistics(
                predictions=commonest_findings(TRAINING, count, NOBODY), references=true
            ).sum(axis=0, keepdims=True)
        )
        for count in range(len(FINDINGS) + 1)
    ]
    best = best_counts(TRAINING)
    for metric, count in best.items():
        assert scores[count][metric][0] == max(float(each[metric][0]) for each in scores), metric
    assert best["coverage"] == 18
    assert best["label_accuracy"] < best["f1"] < 18
    assert scores[best["crg"]]["crg"][0] > 1 / 3


def test_the_commonest_are_counted_without_the_patient() -> None:
    one, two = ((1, 0) + (0,) * 16, (0, 1) + (0,) * 16)
    reports = [report(0, "a", one, 0), report(1, "a", one, 0), report(2, "b", two, 1)]
    found = commonest_findings(reports, 1, [None, "p0", "p1", "stranger"])
    assert found == [one, two, one, one]


@pytest.mark.parametrize("profile", ["ctrate-raw", "r2gen"])
def test_bleu_of_every_training_report_is_exact(profile: str) -> None:
    texts = [each.text for each in TRAINING]
    by_hand = {
        text: bleu_4(predictions=[text] * len(texts), references=texts, profile=profile)  # type: ignore[arg-type]
        for text in texts
    }
    ranked = best_reports(TRAINING, profile, seed=0)["bleu_4"]  # type: ignore[arg-type]
    found = [by_hand[each.text] for each in ranked]
    assert found == sorted(by_hand.values(), reverse=True)


def test_a_text_that_all_share_can_answer_each_patient() -> None:
    same = [report(number, "the lungs are clear", TRAINING[0].labels) for number in range(5)]
    for ranked in best_reports([*TRAINING, *same], "ctrate-raw", seed=0).values():
        assert {each.text for each in ranked} == {each.text for each in (*TRAINING, *same)}
        shared = [each for each in ranked if each.text == "the lungs are clear"]
        assert [each.patient_id for each in shared] == ["p0", "p1"]
