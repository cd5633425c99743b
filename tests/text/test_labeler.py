"""Sentences of our own that hold the traps real reports hold."""

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from textwrap import fill

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PhantomConfig
from ctscribe.measure.clinical import clinical_scores, clinical_statistics, finding_scores
from ctscribe.phantom.study import draw_body, draw_patient, draw_study
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions, finding_statuses, label_csv, label_report
from ctscribe.text.polarity import Status
from ctscribe.text.sections import join_report

NODULE, EFFUSION = "Lung nodule", "Pleural effusion"
Told = dict[str, Status]


def read_table(name: str) -> list[tuple[str, Told]]:
    rows = []
    path = Path(__file__).with_name(name)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sentence, told = line.split(" =>")
            entries = [entry.strip() for entry in told.split(";") if entry.strip()]
            rows.append((sentence.replace("\\n", "\n"), dict(map(parse_entry, entries))))
    return rows


def parse_entry(entry: str) -> tuple[str, Status]:
    if entry.startswith("no "):
        return entry.removeprefix("no "), "absent"
    return (entry[:-1], "uncertain") if entry.endswith("?") else (entry, "present")


TABLE = read_table("labelled_sentences.txt")
HARD = read_table("hard_sentences.txt")
NORMAL = "The lungs are well aerated, and no abnormality is seen in the ribs."
# Sentences that end with a point, so that joining them with a space changes none of them.
CLOSED = [text for text, _ in TABLE if text.endswith(".") and "\n" not in text]


@pytest.mark.parametrize(("sentence", "told"), TABLE + HARD)
def test_what_a_sentence_states(sentence: str, told: Told) -> None:
    read = finding_statuses(sentence)
    assert {f: s for f, s in read.items() if s != "absent" or f in told} == told


def test_the_table_speaks_of_every_finding_in_every_way() -> None:
    assert len(TABLE) >= 150
    said = {(finding, status) for _, told in TABLE for finding, status in told.items()}
    for status in ("present", "absent"):
        assert {finding for finding, way in said if way == status} >= set(FINDINGS)
    assert {status for _, status in said} == {"present", "absent", "uncertain"}


def test_mentions_carry_status_sentence_and_place() -> None:
    text = "Heart is normal. No nodule is seen; effusion (empyema?) on the right."
    mentions = find_mentions(text)
    assert [(m.finding, m.status, text[slice(*m.span)]) for m in mentions] == [
        (NODULE, "absent", "nodule"),
        (EFFUSION, "present", "effusion"),
        (EFFUSION, "uncertain", "empyema"),
    ]
    assert mentions[0].sentence == "No nodule is seen"


def test_one_affirmation_outweighs_denials_elsewhere() -> None:
    text = "No nodule in the right lung. A nodule in the left lung. No nodule in the thyroid."
    assert label_report(text)[FINDINGS.index(NODULE)] == 1
    assert finding_statuses(text) == {NODULE: "present"}


@pytest.mark.parametrize("text", ["", " ", "\n\n", "...", "?", "•", "12.03.2020", "Findings:"])
def test_a_text_without_findings_has_none(text: str) -> None:
    assert label_report(text) == (0,) * 18
    assert find_mentions(text) == []


@given(st.text(max_size=300))
def test_any_text_has_labels_and_spans_inside_it(text: str) -> None:
    assert len(label_report(text)) == 18
    for mention in find_mentions(text):
        start, end = mention.span
        assert 0 <= start < end <= len(text)
        assert mention.sentence in text


@given(st.lists(st.sampled_from(TABLE), max_size=4), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_the_words_at_a_span_stand_in_its_sentence(
    rows: list[tuple[str, Told]], between: str
) -> None:
    text = between.join(sentence for sentence, _ in rows)
    for mention in find_mentions(text):
        assert text[slice(*mention.span)] in mention.sentence


@given(st.lists(st.sampled_from(CLOSED), max_size=8), st.randoms(use_true_random=False))
def test_labels_are_those_of_the_sentences_in_any_order(
    sentences: list[str], random: Random
) -> None:
    apart = [label_report(sentence) for sentence in sentences]
    expected = tuple(max(column) for column in zip((0,) * 18, *apart, strict=True))
    assert label_report(" ".join(sentences)) == expected
    random.shuffle(sentences)
    assert label_report(" ".join(sentences)) == expected


@given(st.lists(st.sampled_from(CLOSED), min_size=1, max_size=4))
def test_a_normal_sentence_white_space_and_headings_change_nothing(sentences: list[str]) -> None:
    text = " ".join(sentences)
    labels = label_report(text)
    assert label_report(f"{NORMAL} {text} {NORMAL}") == labels
    assert label_report(f"\t{text} \n ") == labels
    assert label_report(f"Findings: {text}\nImpression:") == labels


@given(st.lists(st.sampled_from(CLOSED), min_size=1, max_size=4))
def test_capitals_change_nothing(sentences: list[str]) -> None:
    text = " ".join(sentences)
    assert label_report(text.upper()) == label_report(text)


@pytest.mark.parametrize("sentence", [s.lower() for s in CLOSED if len(s) > 75])
def test_short_lines_and_wide_spaces_change_nothing(sentence: str) -> None:
    for changed in (fill(sentence, 66), sentence.replace(" ", "  "), sentence.replace(" ", "\t")):
        assert finding_statuses(changed) == finding_statuses(sentence)
        for mention in find_mentions(changed):
            words = " ".join(changed[slice(*mention.span)].split())
            assert words in sentence
            assert mention.sentence in changed


def test_500_reports_are_read_in_a_second() -> None:
    report = " ".join(CLOSED[:24])
    began = time.process_time()
    for _ in range(50):
        label_report(report)
    assert (time.process_time() - began) / 50 < 0.02  # type checks run in tests; ten times slower


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


def test_people_and_rules_agree_on_800_real_reports(shared_data: Path) -> None:
    rows = read_cells(shared_data / "ct_rate_text" / "labelled_reports_800.csv")
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
