from collections import Counter

import numpy as np
import pytest

from ctscribe.base.recipe import PhantomConfig
from ctscribe.phantom.body import Body
from ctscribe.phantom.phrases import CONCLUDED, NORMAL, STATED
from ctscribe.phantom.study import Study, draw_body, draw_patient, draw_study, study_of_labels
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report
from ctscribe.text.sections import join_report, split_sentences


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    drawn = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patient = draw_patient(rng)
        drawn.append(draw_study(rng, draw_body(rng, patient), patient, PhantomConfig()))
    return drawn


def test_a_reader_of_negation_finds_exactly_the_labels(studies: list[Study]) -> None:
    for study in studies:
        text = join_report(study.report.findings, study.report.impression)
        assert label_report(text) == study.labels, text


def test_findings_and_impression_have_the_usual_length(studies: list[Study]) -> None:
    findings = [len(study.report.findings.split()) for study in studies]
    impression = [len(study.report.impression.split()) for study in studies]
    assert min(findings) >= 70
    assert max(findings) <= 130
    assert min(impression) >= 5
    assert max(impression) <= 35


def test_each_finding_is_stated_in_one_sentence_of_the_report(studies: list[Study]) -> None:
    for study in studies:
        sentences = split_sentences(study.report.findings)
        assert set(study.report.sentences) == set(study.drawings)
        for finding, sentence in study.report.sentences.items():
            assert sentences.count(sentence) == 1
            alone = label_report(sentence)
            assert [f for f, label in zip(FINDINGS, alone, strict=True) if label] == [finding]


def test_about_two_fifths_of_the_words_are_shared_by_most_patients(studies: list[Study]) -> None:
    reports = [split_sentences(study.report.findings) for study in studies]
    counts = Counter(sentence for report in reports for sentence in set(report))
    words = [(len(s.split()), counts[s] > 0.2 * len(studies)) for r in reports for s in r]
    share = sum(n for n, common in words if common) / sum(n for n, _ in words)
    assert 0.33 < share < 0.5


def test_sizes_sides_and_lobes_of_the_truth_are_told() -> None:
    labels = tuple(int(finding == "Lung nodule") for finding in FINDINGS)
    told = 0
    for seed in range(20):
        study = study_of_labels(np.random.default_rng(seed), Body(), labels, PhantomConfig())
        largest = study.drawings["Lung nodule"][0]
        sentence = study.report.sentences["Lung nodule"]
        assert f"{largest.side} {largest.lobe}" in sentence
        told += f"{largest.size_mm:g}" in sentence
    assert told >= 15


def test_even_a_patient_with_everything_gets_a_readable_report() -> None:
    for seed in range(5):
        report = study_of_labels(
            np.random.default_rng(seed), Body(), (1,) * 18, PhantomConfig()
        ).report
        assert label_report(join_report(report.findings, report.impression)) == (1,) * 18
        assert len(report.findings.split()) <= 160
        assert len(report.impression.split()) <= 35


def test_shares_of_paraphrases_are_complete_and_skewed() -> None:
    for choices in (*NORMAL.values(), *STATED.values()):
        shares = [share for share, _ in choices]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
    assert set(CONCLUDED) == set(FINDINGS)
