from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.tables import check_columns, format_csv, format_markdown, read_csv


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


def test_markdown_sets_numbers_right_and_escapes_texts() -> None:
    assert format_markdown(("of", "n"), [("a|b", 1), ("<i>", 22)]) == [
        "| of     | n  |",
        "| ------ | -: |",
        "| a\\|b   | 1  |",
        "| &lt;i> | 22 |",
    ]
