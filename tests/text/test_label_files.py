import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_csv, label_report


def written(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def read_cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


def test_evidence_points_into_the_cells(tmp_path: Path) -> None:
    reports = written(
        tmp_path / "r.csv",
        "VolumeName,Findings_EN,Impressions_EN",
        'a,"No effusion.\nA 5 mm nodule, İ.","Nodule."',
        "b,Normal.,Not given.",
    )
    label_csv(reports, tmp_path / "l.csv", evidence_path=tmp_path / "e.jsonl")
    told = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    cells = read_cells(reports)[0]
    assert [row["VolumeName"] for row in told] == ["a", "b"]
    assert [(m["finding"], m["status"], m["column"]) for m in told[0]["mentions"]] == [
        ("Pleural effusion", "absent", "Findings_EN"),
        ("Lung nodule", "present", "Findings_EN"),
        ("Lung nodule", "present", "Impressions_EN"),
    ]
    for mention in told[0]["mentions"]:
        cell = cells[mention["column"]]
        assert cell[mention["start"] : mention["end"]] == mention["words"]
        assert mention["words"] in mention["sentence"]
        assert mention["sentence"] in cell
    assert told[1]["mentions"] == []


def test_another_reader_takes_the_rules_place(tmp_path: Path) -> None:
    reports = written(tmp_path / "r.csv", "VolumeName,Findings_EN,Impressions_EN", "a,one,two")
    heard: list[str] = []

    def read(texts: Sequence[str]) -> np.ndarray:
        heard.extend(texts)
        return np.eye(1, len(FINDINGS), 3, dtype=bool)

    label_csv(reports, tmp_path / "l.csv", read=read)
    assert heard == ["one\ntwo"]
    row = (tmp_path / "l.csv").read_text().splitlines()[1].split(",")[1:]
    assert [cell == "1" for cell in row] == [i == 3 for i in range(len(FINDINGS))]


def test_nothing_is_written_for_a_broken_file(tmp_path: Path) -> None:
    reports = written(tmp_path / "r.csv", "VolumeName,report_text", "a,x", "a,y")
    with pytest.raises(CtscribeError, match="rows 2 and 3"):
        label_csv(reports, tmp_path / "l.csv", evidence_path=tmp_path / "e.jsonl")
    assert list(tmp_path.iterdir()) == [reports]


def test_the_labels_of_real_reports_are_those_of_their_texts(
    shared_data: Path, tmp_path: Path
) -> None:
    reports = shared_data / "ct_rate_text" / "labelled_reports_800.csv"
    assert label_csv(reports, tmp_path / "l.csv") == 800
    texts, labels = read_cells(reports), read_cells(tmp_path / "l.csv")
    for text, row in list(zip(texts, labels, strict=True))[::40]:
        assert text["AccessionNo"] == row["AccessionNo"]
        assert tuple(int(row[f]) for f in FINDINGS) == label_report(text["report_text"])
