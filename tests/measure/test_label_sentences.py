from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.types import Labels
from ctscribe.measure.baselines import (
    affirming_patients,
    finding_sentences,
    read_label_head,
    reports_from_labels,
)
from ctscribe.measure.scans import ScanReport
from ctscribe.measure.scores import evaluate
from ctscribe.text.findings import FINDINGS

MakeStudies = Callable[..., list[StudyRow]]


def labels_of(*names: str) -> Labels:
    return tuple(int(name in names) for name in FINDINGS)


def report(number: int, patient: int, findings: str, *names: str) -> ScanReport:
    return ScanReport(f"s{number}", f"p{patient}", findings, "", labels_of(*names))


TRAINING = [
    report(0, 0, "The heart is of normal size. No pleural effusion is seen."),
    report(1, 1, "The heart is of normal size. No pleural effusion is seen."),
    report(2, 2, "Emphysema is seen.", "Emphysema"),
    report(3, 3, "Emphysema is seen.", "Emphysema"),
    report(4, 4, "Apical emphysema. A pleural effusion and emphysema are seen.", "Emphysema"),
    report(5, 4, "Apical emphysema.", "Emphysema"),
    report(6, 4, "Apical emphysema.", "Emphysema"),
]


def test_the_sentence_most_patients_share_wins_and_names_its_finding_alone() -> None:
    sentences = finding_sentences(affirming_patients(TRAINING))
    # "Apical emphysema." is there three times, but of one patient.
    assert sentences["Emphysema"] == "Emphysema is seen."
    assert sentences["Pleural effusion"] == "Pleural effusion"  # never affirmed alone


def test_the_normal_report_keeps_what_is_not_contradicted() -> None:
    normal, ill = reports_from_labels(
        TRAINING, [labels_of(), labels_of("Emphysema", "Pleural effusion")], [None, None]
    )
    assert normal[0] == TRAINING[0].findings
    assert ill[0] == "The heart is of normal size. Emphysema is seen. Pleural effusion."
    assert ill[1] == "Emphysema is seen. Pleural effusion."


def test_true_labels_are_said_so_that_the_labeler_reads_them(
    make_studies: MakeStudies, make_prediction: Callable[..., PredictionRow]
) -> None:
    studies, training = make_studies(15), make_studies(40, "train")
    stated = {study.scan_id: study.labels for study in studies if study.labels is not None}
    config = EvaluateConfig(resamples=100)
    rows = [make_prediction(study) for study in studies]
    scores = evaluate(rows, studies, training, config, stated=stated)
    assert scores["baselines"]["label_sentences"]["f1"]["value"] == 1
    assert "label_sentences" in scores["baseline_rules"]
    assert "label_sentences" not in evaluate(rows, studies, training, config)["baselines"]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [f"{name}," + ",".join([cell] * 18) for name, cell in rows]
    path.write_text("\n".join([",".join(("VolumeName", *FINDINGS)), *lines]), encoding="utf-8")
    return path


def test_probabilities_become_labels_at_a_half(make_studies: MakeStudies, tmp_path: Path) -> None:
    first, second = make_studies(2)
    names = first.volume_name, second.volume_name
    path = write(tmp_path / "p.csv", [(names[0], "0.5"), (names[1], "0.49"), ("another", "x")])
    assert read_label_head(path, [first, second]) == {
        first.scan_id: (1,) * 18,
        second.scan_id: (0,) * 18,
    }


@pytest.mark.parametrize(
    ("cell", "told"), [("1.2", "from 0 to 1"), ("nan", "from 0 to 1"), ("", "from 0 to 1")]
)
def test_what_is_no_probability_is_refused(
    cell: str, told: str, make_studies: MakeStudies, tmp_path: Path
) -> None:
    (study,) = make_studies(1)
    with pytest.raises(CtscribeError, match=rf"{told}.*E_LABEL_HEAD"):
        read_label_head(write(tmp_path / "p.csv", [(study.volume_name, cell)]), [study])


def test_a_scan_without_a_row_and_a_file_without_columns_are_refused(
    make_studies: MakeStudies, tmp_path: Path
) -> None:
    studies = make_studies(2)
    path = write(tmp_path / "p.csv", [(studies[0].volume_name, "0")])
    with pytest.raises(CtscribeError, match=rf"lacks 1.*{studies[1].scan_id}.*E_LABEL_HEAD"):
        read_label_head(path, studies)
    path.write_text("VolumeName,Emphysema\n", encoding="utf-8")
    with pytest.raises(CtscribeError, match=r"'Medical material', but lacks.*E_COLUMN"):
        read_label_head(path, studies)
    with pytest.raises(CtscribeError, match="E_MISSING"):
        read_label_head(tmp_path / "none.csv", studies)


def test_a_patient_left_out_gives_neither_sentence_nor_normal_report() -> None:
    affirmed = affirming_patients(TRAINING[:3])
    assert finding_sentences(affirmed, "p2")["Emphysema"] == "Emphysema"
    stated = [labels_of("Emphysema")] * 2
    knowing, unknowing = reports_from_labels(TRAINING[:3], stated, [None, "p2"])
    assert knowing[1] == "Emphysema is seen."
    assert unknowing[1] == "Emphysema."
