import itertools
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import ReportedRow
from ctscribe.base.types import Labels
from ctscribe.measure.baselines import (
    SIGHTED,
    affirming_patients,
    choose_reports,
    finding_sentences,
    read_label_head,
    reports_from_labels,
    stated_by,
    write_baselines,
)
from ctscribe.measure.clinical import CLINICAL_METRICS
from ctscribe.measure.pool import Pool
from ctscribe.measure.scans import ScanReport, as_reports
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS
from tests.studies import prediction, reported_studies


def report(number: int, text: str, *present: int) -> ScanReport:
    labels = tuple(int(i in present) for i in range(18))
    return ScanReport(f"s{number}", f"p{number}", text, "", labels)


def medoid(reports: list[ScanReport]) -> ScanReport:
    return Pool.of(reports).medoids([None])[0]


def normal_report(reports: list[ScanReport]) -> ScanReport:
    return Pool.of(reports).normal_reports([None])[0]


TRAINING = [
    report(0, "lungs are clear heart normal"),
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
    assert chosen["other_patient"][1].patient_id != "p3"
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


def labels_of(*names: str) -> Labels:
    return tuple(int(name in names) for name in FINDINGS)


def said(number: int, patient: int, findings: str, *names: str) -> ScanReport:
    return ScanReport(f"s{number}", f"p{patient}", findings, "", labels_of(*names))


STATED = [
    said(0, 0, "The heart is of normal size. No pleural effusion is seen."),
    said(1, 1, "The heart is of normal size. No pleural effusion is seen."),
    said(2, 2, "Emphysema is seen.", "Emphysema"),
    said(3, 3, "Emphysema is seen.", "Emphysema"),
    said(4, 4, "Apical emphysema. A pleural effusion and emphysema are seen.", "Emphysema"),
    said(5, 4, "Apical emphysema.", "Emphysema"),
    said(6, 4, "Apical emphysema.", "Emphysema"),
]


def test_the_sentence_most_patients_share_wins_and_names_its_finding_alone() -> None:
    sentences = finding_sentences(affirming_patients(STATED))
    # "Apical emphysema." is there three times, but of one patient.
    assert sentences["Emphysema"] == "Emphysema is seen."
    assert sentences["Pleural effusion"] == "Pleural effusion"  # never affirmed alone


def test_the_normal_report_keeps_what_is_not_contradicted() -> None:
    normal, ill = reports_from_labels(
        STATED, [labels_of(), labels_of("Emphysema", "Pleural effusion")], [None, None]
    )
    assert normal[0] == STATED[0].findings
    assert ill[0] == "The heart is of normal size. Emphysema is seen. Pleural effusion."
    assert ill[1] == "Emphysema is seen. Pleural effusion."


def test_true_labels_are_said_so_that_the_labeler_reads_them() -> None:
    studies, training = reported_studies(15), reported_studies(40, "train")
    told = {study.scan_id: [float(label) for label in study.labels or ()] for study in studies}
    config = EvaluateConfig(resamples=100)
    rows = [prediction(study) for study in studies]
    scores = evaluate(rows, studies, training, config, label_head=told)
    assert scores["baselines"]["label_sentences"]["f1"]["value"] == 1
    assert "label_sentences" in scores["baseline_rules"]
    assert "label_sentences" not in evaluate(rows, studies, training, config)["baselines"]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [f"{name}," + ",".join([cell] * 18) for name, cell in rows]
    path.write_text("\n".join([",".join(("VolumeName", *FINDINGS)), *lines]), encoding="utf-8")
    return path


def test_probabilities_become_labels_at_a_half(tmp_path: Path) -> None:
    first, second = reported_studies(2)
    names = first.volume_name, second.volume_name
    path = write(tmp_path / "p.csv", [(names[0], "0.5"), (names[1], "0.49"), ("another", "0.3")])
    assert stated_by(read_label_head(path, [first, second])) == {
        first.scan_id: (1,) * 18,
        second.scan_id: (0,) * 18,
    }


@pytest.mark.parametrize("cell", ["1.2", "nan", ""])
def test_what_is_no_probability_is_refused(cell: str, tmp_path: Path) -> None:
    (study,) = reported_studies(1)
    with pytest.raises(CtscribeError, match=r"from 0 to 1.*E_LABEL_HEAD"):
        read_label_head(write(tmp_path / "p.csv", [(study.volume_name, cell)]), [study])


def test_a_scan_without_a_row_and_a_file_without_columns_are_refused(tmp_path: Path) -> None:
    studies = reported_studies(2)
    path = write(tmp_path / "p.csv", [(studies[0].volume_name, "0")])
    with pytest.raises(CtscribeError, match=rf"lacks 1.*{studies[1].scan_id}.*E_LABEL_HEAD"):
        read_label_head(path, studies)
    path.write_text("VolumeName,Emphysema\n", encoding="utf-8")
    with pytest.raises(CtscribeError, match=r"'Medical material', but lacks.*E_COLUMN"):
        read_label_head(path, studies)
    with pytest.raises(CtscribeError, match="E_MISSING"):
        read_label_head(tmp_path / "none.csv", studies)


def test_a_patient_left_out_gives_neither_sentence_nor_normal_report() -> None:
    affirmed = affirming_patients(STATED[:3])
    assert finding_sentences(affirmed, "p2")["Emphysema"] == "Emphysema"
    stated = [labels_of("Emphysema")] * 2
    knowing, unknowing = reports_from_labels(STATED[:3], stated, [None, "p2"])
    assert (knowing[1], unknowing[1]) == ("Emphysema is seen.", "Emphysema.")


def test_each_metric_has_the_constant_that_was_best_on_the_training_reports() -> None:
    studies, training = reported_studies(40), reported_studies(60, "train")
    scores = evaluate([prediction(s) for s in studies], studies, training, EvaluateConfig())
    constants = {name for name in scores["baselines"] if name.startswith(("commonest", "best"))}
    told = {
        metric: name
        for name in constants
        for metric in scores["baseline_rules"][name].rpartition(" for ")[2].split(", ")
    }
    # Five findings occur, and stating all of them is enough.
    assert told["coverage"] == "commonest_5"
    assert scores["baselines"]["commonest_5"]["coverage"]["value"] == 1
    assert told.keys() >= {*CLINICAL_METRICS, "bleu_4", "rouge_l", "cider"}
    for metric, name in scores["strongest"].items():
        values = {
            each: table[metric]["value"]
            for each, table in scores["baselines"].items()
            if each not in SIGHTED
        }
        assert values[name] == max(values.values())
    assert "most alike by age, sex," in scores["baseline_rules"]["same_header"]


def test_without_age_sex_or_header_that_baseline_is_left_out_and_it_is_said() -> None:
    bare = {"manufacturer": None, "sex": None, "age_years": None}
    studies = reported_studies(12)
    rows = [
        ReportedRow.model_validate(row.model_dump(include=set(ReportedRow.model_fields)) | bare)
        for row in studies
    ]
    scores = evaluate([prediction(s) for s in studies], rows, None, EvaluateConfig())
    assert "same_header" not in scores["baselines"]
    assert scores["baseline_rules"]["same_header"].startswith("left out")


def test_alone_the_patient_gives_no_constant() -> None:
    studies = reported_studies(12)
    answered = write_baselines(None, as_reports(studies), seed=0)
    best = next(each for name, each in answered.items() if name.startswith("best_"))
    own = {study.findings for study in studies}
    assert all(findings in own for findings, _ in best.sections)
    texts = [study.findings for study in studies]
    twice = {text for text in texts if texts.count(text) > 1}
    pairs = zip(best.sections, studies, strict=True)
    assert all(found != study.findings or found in twice for (found, _), study in pairs)
