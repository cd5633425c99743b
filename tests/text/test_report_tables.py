from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.text.report_tables import read_report_table
from tests.refusals import refusal


@pytest.mark.parametrize(
    ("content", "key", "columns"),
    [
        ("AccessionNo,report_text\na,x\n", "AccessionNo", ("report_text",)),
        ("AccessionNo,VolumeName,report_text\nb,a,x\n", "VolumeName", ("report_text",)),
        ("VolumeName,generated_report,score\na,x,1\n", "VolumeName", ("generated_report",)),
        ("VolumeName,what it says\na,x\n", "VolumeName", ("what it says",)),
        ("﻿VolumeName,report_text\r\na,x\r\n\r\n", "VolumeName", ("report_text",)),
    ],
)
def test_key_and_text_are_found(
    tmp_path: Path, content: str, key: str, columns: tuple[str, ...]
) -> None:
    path = tmp_path / "r.csv"
    path.write_text(content, encoding="utf-8", newline="")
    table = read_report_table(path)
    assert (table.key, table.columns, table.names) == (key, columns, ("a",))
    assert table.texts == (("x",),)


def test_sections_stand_apart_and_not_given_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(
        'Impressions_EN,VolumeName,Findings_EN\nNot given.,a,"line 1\nline 2, ""so"""\n',
        encoding="utf-8",
    )
    table = read_report_table(path)
    assert table.columns == ("Findings_EN", "Impressions_EN")
    assert table.texts == (('line 1\nline 2, "so"', ""),)


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (b"", "E_COLUMN", "no header"),
        (b"VolumeName,report_text\n", "E_EMPTY_REPORT", "only a header"),
        (b"VolumeName;report_text\na;x\n", "E_COLUMN", "parted by commas"),
        (b"Name,report_text\na,x\n", "E_COLUMN", "has Name, report_text"),
        (b"VolumeName,Findings_EN\na,x\n", "E_COLUMN", "Impressions_EN"),
        (b"VolumeName,report_text,report_text\na,x,y\n", "E_COLUMN", "two 'report_text'"),
        (b"VolumeName,report,prediction\na,x,y\n", "E_COLUMN", "has report beside prediction"),
        (
            b"VolumeName,generated_report,Findings_EN,Impressions_EN\na,x,y,z\n",
            "E_COLUMN",
            "has generated_report beside Findings_EN and Impressions_EN",
        ),
        (b"PK\x03\x04\x14\x00\x06\x00\xff", "E_ENCODING", "a spreadsheet's file"),
        (b"VolumeName,report_text\na,x\nb,y,z\n", "E_CSV", "row 3 has 3"),
        (b"VolumeName,report_text\na,x\n\nb\n", "E_CSV", "row 4 has 1"),
        (b'VolumeName,report_text\na,"x\n', "E_CSV", "row 2"),
        (b"VolumeName,report_text\na,x\n,y\n , z\n", "E_CSV", "rows 3, 4 have none"),
        (b"VolumeName,report_text\na,x\nb,y\na,z\n", "E_DUPLICATE", "rows 2 and 4"),
        (b"VolumeName,report_text\na,\n", "E_EMPTY_REPORT", "row 2 has none"),
        (b"VolumeName,report_text\na,x\n\nb, \n", "E_EMPTY_REPORT", "row 4 has none"),
        (b"VolumeName,report_text\n" + b"%d,\n" * 7 % (*range(7),), "E_EMPTY_REPORT", "and 2 more"),
        (b"VolumeName,report_text\na,x\nb,\xddki ak\xfe\n", "E_ENCODING", "line 3"),
        ("VolumeName,report_text\na,x\n".encode("utf-16"), "E_ENCODING", "line 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(
    tmp_path: Path, content: bytes, code: str, told: str
) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with refusal(code) as caught:
        read_report_table(path)
    assert told in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "no.csv", "E_MISSING"), (tmp_path, "E_READ")):
        with refusal(code):
            read_report_table(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(
    tmp_path_factory: pytest.TempPathFactory, b: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"VolumeName,report_text\n" + b)
    try:
        table = read_report_table(path)
    except CtscribeError:
        return
    assert len(set(table.names)) == len(table.names) == len(table.texts)


def test_a_first_row_that_is_a_report_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("The lungs of a named person are clear and the heart is of normal size.\n")
    with refusal("E_COLUMN", "has a report") as caught:
        read_report_table(path)
    assert "person" not in str(caught.value)
