import csv
import io
import tracemalloc
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.tables import (
    MAX_COLUMNS,
    check_columns,
    check_header,
    count_columns,
    format_csv,
    format_markdown,
    read_csv,
    read_single_column,
)
from tests.refusals import refusal


def saved(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_rows_are_counted_as_a_spreadsheet_does_and_blank_ones_left_out(tmp_path: Path) -> None:
    text = '\ufeffname, text\r\na,"x\ny"\r\n\r\n , \r\nb, z \r\n'
    table = read_csv(saved(tmp_path / "t.csv", text))
    assert table.columns == ("name", "text")
    assert table.rows == {2: {"name": "a", "text": "x\ny"}, 5: {"name": "b", "text": " z "}}
    assert list(table.by_name("name")) == ["a", "b"]


def test_what_is_no_table_is_refused_under_the_readers_own_code(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.csv", "a,b\n1\n")
    for code, expected in ((None, "E_CSV"), ("E_WHERE", "E_WHERE")):
        with pytest.raises(CtscribeError, match=f"row 2 has 1.*{expected}"):
            read_csv(path, code)


def test_a_column_that_may_have_been_meant_is_named(tmp_path: Path) -> None:
    table = read_csv(saved(tmp_path / "t.csv", "Volume,Pateint,agee\n1,2,3\n"))
    with pytest.raises(CtscribeError, match="column 'volume', but lacks it and has 'Volume'"):
        check_columns(table, ("volume",))
    with pytest.raises(CtscribeError, match=r"'agee' is unknown \(did you mean 'age'\?\)"):
        check_columns(table, ("Volume",), ("Volume", "Pateint", "age"))


def test_what_is_written_as_csv_is_read_again(tmp_path: Path) -> None:
    rows = [("a", "b"), ('say "x"', "one,\ntwo")]
    table = read_csv(saved(tmp_path / "t.csv", format_csv(rows)))
    assert [tuple(cells.values()) for cells in table.rows.values()] == rows[1:]


def test_formulas_reach_no_spreadsheet_and_come_back_as_they_were(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-No nodule.", "@x", "\tx", "\rx", "'=x", "''-", "＝x", "'quoted", "-"]
    numbers = ["-0.5", "+1e-3", "-3", -2, 0.5]
    written = format_csv([("=name", "n"), *((text, 1) for text in texts)])
    cells = read_csv(saved(tmp_path / "t.csv", written))
    assert cells.columns == ("=name", "n")
    assert [row["=name"] for row in cells.rows.values()] == texts
    raw = list(csv.reader(io.StringIO(written, newline="")))
    assert not any(cell[:1] in "=+-@\t\r＝" for cell, _ in raw)
    assert format_csv([numbers]) == "-0.5,+1e-3,-3,-2,0.5\n"


def test_cells_may_be_long_and_names_written_in_either_form(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.csv", f"name,text\no\u0308,{'x' * 200_000}\n")
    assert len(read_csv(path).by_name("name")["\u00f6"]["text"]) == 200_000
    with pytest.raises(CtscribeError, match="rows 2 and 3 have the same"):
        read_csv(saved(path, "name\no\u0308\n\u00f6\n")).by_name("name")


def test_markdown_sets_numbers_right_and_escapes_texts() -> None:
    assert format_markdown(("of", "n"), [("a|b", 1), ("<i>", 22)]) == [
        "| of     | n  |",
        "| ------ | -: |",
        "| a\\|b   | 1  |",
        "| &lt;i> | 22 |",
    ]


def test_a_wide_header_takes_its_length_and_has_an_end(tmp_path: Path) -> None:
    class Compared(str):
        """A name that counts how often it is compared."""

        times = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Compared.times += 1
            return str.__eq__(self, other)

    check_header(tmp_path, [Compared(number) for number in range(MAX_COLUMNS)], "E_COLUMN")
    assert Compared.times < 4 * MAX_COLUMNS  # each name against every other: 134 million
    wide = ",".join(map(str, range(MAX_COLUMNS + 1)))
    with refusal("E_COLUMN", f"at most {MAX_COLUMNS} columns, but has {MAX_COLUMNS + 1}"):
        read_csv(saved(tmp_path / "t.csv", wide))
    with refusal("E_COLUMN", "has two '7'"):
        read_csv(saved(tmp_path / "t.csv", wide.replace(",8,", ",7,", 1).rpartition(",")[0]))


def test_of_columns_that_nobody_keeps_nothing_is_held(tmp_path: Path) -> None:
    rows = [("name", "text"), *((f"n{number}", "x" * 5000) for number in range(1000))]
    path = saved(tmp_path / "t.csv", format_csv(rows))
    tracemalloc.start()
    table = read_csv(path, keep=("name",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.columns == ("name", "text")
    assert [dict(cells) for cells in table.rows.values()] == [
        {"name": name} for name, _ in rows[1:]
    ]
    assert peak < path.stat().st_size / 8


def test_a_bad_byte_is_told_by_its_line_however_late(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"name\n" + b"a\n" * 20_000 + b"\xe9\n")
    with refusal("E_ENCODING", "line 20002 holds the byte 0xE9"):
        read_csv(path)


def test_a_column_without_a_header_is_read_whole(tmp_path: Path) -> None:
    cells = ["a, b", "", "c", "- d", 'say "x"']
    path = saved(tmp_path / "t.csv", format_csv([cell] for cell in cells) + "\n")
    assert read_single_column(path) == cells
    assert count_columns(path) == 1
    saved(path, "a\nb,c\n")
    with refusal("E_CSV", "row 2 has 2"):
        read_single_column(path)
    assert count_columns(saved(path, "")) == 0
