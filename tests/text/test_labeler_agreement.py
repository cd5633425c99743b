"""Agreement with people on real reports, and with the truth of synthetic ones."""

import csv
from pathlib import Path

import numpy as np

from ctscribe.base.recipe import PhantomConfig
from ctscribe.measure.clinical import clinical_scores, clinical_statistics, finding_scores
from ctscribe.phantom.study import draw_body, draw_patient, draw_study
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report
from ctscribe.text.sections import join_report


def test_people_and_rules_agree_on_800_real_reports(shared_data: Path) -> None:
    path = shared_data / "ct_rate_text" / "labelled_reports_800.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    true = [tuple(int(row[finding]) for finding in FINDINGS) for row in rows]
    stated = [label_report(row["report_text"]) for row in rows]
    totals = clinical_statistics(predictions=stated, references=true).sum(axis=0, keepdims=True)
    assert clinical_scores(totals)["f1_macro"][0] >= 0.96
    assert finding_scores(totals)["f1"].min() >= 0.88


def test_the_phantoms_reports_are_read_as_they_were_meant() -> None:
    num_studies, wrong = 100, np.zeros(len(FINDINGS))
    for number in range(num_studies):
        rng = np.random.default_rng([5, number])
        patient = draw_patient(rng)
        study = draw_study(rng, draw_body(rng, patient), patient, PhantomConfig())
        read = label_report(join_report(study.report.findings, study.report.impression))
        wrong += np.array(read) != np.array(study.labels)
    assert wrong.max() <= 1
    assert wrong.sum() <= 0.005 * num_studies * len(FINDINGS)
