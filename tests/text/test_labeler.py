"""Sentences of our own that hold the traps real reports hold."""

import time
from pathlib import Path
from random import Random
from textwrap import fill

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import find_mentions, finding_statuses, label_report
from ctscribe.text.polarity import Status

NODULE, EFFUSION = "Lung nodule", "Pleural effusion"
Told = dict[str, Status]


def read_table() -> list[tuple[str, Told]]:
    rows = []
    path = Path(__file__).with_name("labelled_sentences.txt")
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


TABLE = read_table()
NORMAL = "The lungs are well aerated, and no abnormality is seen in the ribs."
# Sentences that end with a point, so that joining them with a space changes none of them.
CLOSED = [text for text, _ in TABLE if text.endswith(".") and "\n" not in text]


@pytest.mark.parametrize(("sentence", "told"), TABLE)
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
