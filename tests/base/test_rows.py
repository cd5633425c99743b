from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import PairRow, append_row, one_per_scan, read_rows, write_rows
from tests.studies import study_row

PAIR = (
    PairRow(study="train_1_a_1.nii.gz", role="positive", volume="train_1_a_1.nii.gz"),
    PairRow(study="train_1_a_1.nii.gz", role="negative", volume=None, noise_seed=7),
)


def test_rows_survive_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, PAIR)
    name = "a\u2028b\x85c"  # only a line feed ends a line
    append_row(path, PairRow(study=name, role="positive", volume=name))
    assert read_rows(path, PairRow) == [*PAIR, PairRow(study=name, role="positive", volume=name)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"study": "a", "role": "neutral", "volume": null}', "role"),
        ('{"study": "a", "role": "positive", "volume": null, "extra": 1}', "extra"),
        ("{", "line 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, PAIR)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(CtscribeError, match=words) as caught:
        read_rows(path, PairRow)
    assert "line 3" in caught.value.sentence


def test_a_line_cut_by_an_interruption_is_dropped_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, PAIR)
    path.write_text(path.read_text() + '{"study": "a", "ro')
    assert read_rows(path, PairRow, partial=True) == list(PAIR)
    with pytest.raises(CtscribeError, match="line 3"):
        read_rows(path, PairRow)


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CtscribeError, match="or run the stage"):
        read_rows(tmp_path / "none.jsonl", PairRow)


def test_the_first_reconstruction_stands_for_the_scan() -> None:
    names = ("valid_1_a_1", "valid_1_a_2", "valid_1_b_1", "valid_2_a_1")
    studies = [study_row(f"{name}.nii.gz") for name in names]
    assert one_per_scan(studies) == [studies[0], studies[2], studies[3]]
