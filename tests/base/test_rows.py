import json
import re
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import (
    GapRow,
    PairRow,
    PredictionRow,
    Row,
    StudyRow,
    TruthRow,
    append_row,
    one_per_scan,
    read_rows,
    write_rows,
)
from tests.damage import HOSTILE, flip_bit, full_disk
from tests.refusals import refusal
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


STUDY = study_row("train_1_a_1.nii.gz", reach_z=((29.0, 31.0), (19, 21), (9, 11), (0, 1)))
FAULTS: dict[str, object] = {
    "labels": [7] + [0] * 17,
    "spacing_mm": [0, 1, 1],
    "shape_xyz": [56, 56, 0],
    "slice_indices": [100, 20, 10, 0],
    "position_mm": [1.0] * 5,
    "frame_to_ras": [[1.0, 0, 0, 0]] * 3,
    "reach_z": [[1.0, 2.0]],
    "volume_name": "../x",
    "split": "test",
    "sex": "female",
    "age_years": 131,
    "findings": None,
    "patient_id": "",
}


@pytest.mark.parametrize("field", FAULTS)
def test_what_no_stage_can_have_written_is_refused_by_its_line(tmp_path: Path, field: str) -> None:
    path = tmp_path / "studies.jsonl"
    write_rows(path, [STUDY])
    assert read_rows(path, StudyRow) == [STUDY]
    row = STUDY.model_dump(mode="json") | {"volume_name": "b.nii.gz", field: FAULTS[field]}
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with refusal("E_ROW", "line 2 must be a StudyRow, but "):
        read_rows(path, StudyRow)


@pytest.mark.parametrize(
    ("row_type", "line"),
    [
        (PairRow, {"study": "a", "role": "positive", "volume": "b"}),
        (PairRow, {"study": "a", "role": "negative", "volume": "a"}),
        (PairRow, {"study": "a", "role": "negative", "volume": None}),
        (TruthRow, {"volume_name": "", "scan_id": "a", "lesions": []}),
        (
            PredictionRow,
            {
                **dict.fromkeys(("scan_id", "patient_id", "volume_name"), "a"),
                **dict.fromkeys(("findings", "impression"), "x"),
                "num_tokens": -1,
            },
        ),
    ],
)
def test_rows_of_other_files_are_checked_too(
    tmp_path: Path, row_type: type[Row], line: dict[str, object]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(line) + "\n")
    with refusal("E_ROW", "line 1 must be"):
        read_rows(tmp_path / "rows.jsonl", row_type)


def test_a_line_that_is_there_twice_is_named_with_the_first(tmp_path: Path) -> None:
    write_rows(tmp_path / "studies.jsonl", [STUDY, STUDY])
    with refusal("E_ROW", "line 2 must be a StudyRow, but it has the volume_name of line 1"):
        read_rows(tmp_path / "studies.jsonl", StudyRow)


def test_names_match_in_either_form_and_placeholders_are_no_report() -> None:
    names = dict.fromkeys(("scan_id", "patient_id", "volume_name"), "o\u0308")
    row = PredictionRow(**names, findings="Not given", impression="N/A")
    assert (row.scan_id, row.findings, row.impression) == ("\u00f6", "", "")


@pytest.mark.parametrize("at", [0.02, 0.2, 0.4, 0.6, 0.97])
def test_a_flipped_bit_is_told_with_its_line(tmp_path: Path, at: float) -> None:
    path = tmp_path / "gaps.jsonl"
    write_rows(path, [GapRow(study=f"study {n}", volume="b", gap=n) for n in range(9)])
    flip_bit(path, at)
    number = path.read_bytes()[: int(at * path.stat().st_size)].count(b"\n") + 1
    with refusal("E_ROW", f"line {number} must be"):
        read_rows(path, GapRow)


def test_an_edited_line_is_refused_unless_it_leaves_its_checksum_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, PAIR)
    whole = path.read_text()
    path.write_text(whole.replace('"noise_seed":7', '"noise_seed":8'))
    with refusal("E_ROW", "line 2 must be a PairRow, but it was changed .* goes without"):
        read_rows(path, PairRow)
    path.write_text(re.sub(r',"crc32":"[0-9a-f]+"', "", path.read_text()))
    assert read_rows(path, PairRow)[1].noise_seed == 8


def test_rows_may_be_spaced_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    write_rows(path, [GapRow(study="é", volume="b", gap=1e-7)])
    path.write_text(json.dumps(json.loads(path.read_text())) + "\n")
    assert read_rows(path, GapRow) == [GapRow(study="é", volume="b", gap=1e-7)]


@pytest.mark.parametrize("content", [c for c in HOSTILE if c not in (b"", b"\xff\xfe{}")])
def test_a_hostile_line_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with refusal("E_ROW", "line 1 must be a PairRow") as caught:
        read_rows(path, PairRow)
    assert len(str(caught.value)) < 600


def test_a_full_disk_is_one_sentence_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_rows(path, PAIR)
    with refusal("E_WRITE"), full_disk(path.stat().st_size + 9):
        append_row(path, PAIR[0])
    assert read_rows(path, PairRow, partial=True) == list(PAIR)
