import csv
from pathlib import Path

import pytest

from ctscribe.errors import CtscribeError
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.label_files import label_csv


def written(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_labels_keep_the_key_and_ct_rates_order(tmp_path: Path) -> None:
    reports = written(
        tmp_path / "reports.csv",
        "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN",
        'valid_1_a_1.nii.gz,,,"A nodule is seen.","Hiatal hernia"',
        'valid_2_a_1.nii.gz,,,"Normal, no nodule.",Not given.',
    )
    assert label_csv(reports, tmp_path / "labels.csv") == 2
    rows = list(csv.reader((tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["VolumeName", *FINDINGS]
    assert rows[1][0] == "valid_1_a_1.nii.gz"
    assert [FINDINGS[i] for i, cell in enumerate(rows[1][1:]) if cell == "1"] == [
        "Hiatal hernia",
        "Lung nodule",
    ]
    assert set(rows[2][1:]) == {"0"}


def test_one_text_column_will_do(tmp_path: Path) -> None:
    reports = written(tmp_path / "r.csv", "AccessionNo,report_text", "a1,Emphysema.")
    assert label_csv(reports, tmp_path / "l.csv") == 1
    assert (tmp_path / "l.csv").read_text(encoding="utf-8").startswith("AccessionNo,Medical")


@pytest.mark.parametrize(
    ("header", "line", "code"),
    [
        ("Name,report_text", "a,b", "E_COLUMN"),
        ("VolumeName,Findings_EN", "a,b", "E_COLUMN"),
        ("VolumeName,report_text", "a,", "E_EMPTY_REPORT"),
        ("VolumeName,report_text", 'a,"b', "E_CSV"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, header: str, line: str, code: str) -> None:
    with pytest.raises(CtscribeError) as caught:
        label_csv(written(tmp_path / "r.csv", header, line), tmp_path / "l.csv")
    assert caught.value.code == code
    assert not (tmp_path / "l.csv").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match=r"no\.csv must exist"):
        label_csv(tmp_path / "no.csv", tmp_path / "l.csv")
