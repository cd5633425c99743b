import json
import sqlite3
from pathlib import Path

import pytest

from ctscribe.data.ledger import open_ledger
from tests.damage import flip_bit
from tests.refusals import refusal

RECORD = {"request": "abc", "source_bytes": 5, "source_mtime_ns": 7, "spacing_mm": [1.0, 1.0, 2.0]}
REQUEST = {key: RECORD[key] for key in ("request", "source_bytes", "source_mtime_ns")}


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "slices" / name for name in ("a.npy", "a.json")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"frames")
    return paths


@pytest.fixture
def path(tmp_path: Path, outputs: list[Path]) -> Path:
    with open_ledger(tmp_path / "ledger.sqlite", tmp_path) as ledger:
        ledger.done("a", RECORD, outputs)
        ledger.failed("b", "E_TRUNCATED", "b must be complete")
    return tmp_path / "ledger.sqlite"


def test_what_is_done_is_known_again(path: Path, tmp_path: Path, outputs: list[Path]) -> None:
    with open_ledger(path, tmp_path) as ledger:
        assert ledger.find("a", REQUEST, outputs) == RECORD
        assert ledger.find("a", REQUEST, outputs[:1]) == RECORD
        assert ledger.find("a", {**REQUEST, "request": "other"}, outputs) is None
        assert ledger.find("a", {**REQUEST, "source_mtime_ns": 8}, outputs) is None
        assert ledger.find("a", REQUEST, [*outputs, tmp_path / "slices/store"]) is None
        assert ledger.find("b", REQUEST, []) is None
        assert ledger.find("c", REQUEST, []) is None
    assert not list(tmp_path.glob("ledger.sqlite-*"))


def test_a_changed_or_missing_output_is_not_known(
    path: Path, tmp_path: Path, outputs: list[Path]
) -> None:
    with open_ledger(path, tmp_path) as ledger:
        outputs[0].write_bytes(b"FRAMES")  # of the same size, but later
        assert ledger.find("a", REQUEST, outputs) is None
        assert ledger.find("a", REQUEST, outputs[1:]) == RECORD
        outputs[1].unlink()
        assert ledger.find("a", REQUEST, outputs[1:]) is None


def test_it_is_read_while_it_is_written(path: Path, tmp_path: Path) -> None:
    with open_ledger(path, tmp_path) as ledger:
        ledger.failed("c", "E_TRUNCATED", "c must be complete")
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        query = "SELECT code, count(*) FROM volumes GROUP BY code ORDER BY code"
        assert reader.execute(query).fetchall() == [(None, 1), ("E_TRUNCATED", 2)]
        ledger.done("c", RECORD, [])
        assert reader.execute(query).fetchall() == [(None, 2), ("E_TRUNCATED", 1)]
        reader.close()


def test_a_damaged_ledger_is_begun_anew(path: Path, tmp_path: Path, outputs: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    content[4096:5000] = b"\xff" * 904  # the table's page
    for damaged in (bytes(content), b"<html>" * 100, content[:5000]):
        path.write_bytes(damaged)
        with open_ledger(path, tmp_path) as ledger:
            assert ledger.find("a", REQUEST, outputs) is None
            ledger.done("a", RECORD, outputs)
            assert ledger.find("a", REQUEST, outputs) == RECORD


def test_a_new_one_takes_over_what_shards_did(
    path: Path, tmp_path: Path, outputs: list[Path]
) -> None:
    (tmp_path / "not.sqlite").write_text("no ledger")
    whole = tmp_path / "whole.sqlite"
    with open_ledger(whole, tmp_path, [tmp_path / "not.sqlite", path]) as ledger:
        assert ledger.find("a", REQUEST, outputs) == RECORD


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    with (
        refusal("E_WRITE", "must be writable"),
        open_ledger(tmp_path / "missing" / "ledger.sqlite", tmp_path),
    ):
        pass


def test_records_are_plain_json(path: Path) -> None:
    database = sqlite3.connect(path)
    (text,) = database.execute("SELECT record FROM volumes WHERE name = 'a'").fetchone()
    database.close()
    assert json.loads(text) == RECORD


@pytest.mark.parametrize("column", ["record", "files"])
def test_a_row_that_does_not_have_its_checksum_counts_as_not_there(
    path: Path, tmp_path: Path, outputs: list[Path], column: str
) -> None:
    database = sqlite3.connect(path)
    change = f"UPDATE volumes SET {column} = replace({column}, '1', '2') WHERE name = 'a'"
    assert database.execute(change).rowcount == 1
    database.commit()
    database.close()
    with open_ledger(path, tmp_path) as ledger:
        assert ledger.find("a", REQUEST, outputs) is None
        ledger.done("a", RECORD, outputs)
        assert ledger.find("a", REQUEST, outputs) == RECORD


def test_no_flipped_bit_is_believed(path: Path, tmp_path: Path, outputs: list[Path]) -> None:
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        path.write_bytes(whole)
        flip_bit(path, place / len(whole))
        with open_ledger(path, tmp_path) as ledger:
            assert ledger.find("a", REQUEST, outputs) in (None, RECORD)


def test_a_ledger_of_an_earlier_version_is_begun_anew(tmp_path: Path, outputs: list[Path]) -> None:
    path = tmp_path / "ledger.sqlite"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE volumes (name, code, reason, record, files)")
    database.commit()
    database.close()
    with open_ledger(path, tmp_path) as ledger:
        ledger.done("a", RECORD, outputs)
        assert ledger.find("a", REQUEST, outputs) == RECORD
