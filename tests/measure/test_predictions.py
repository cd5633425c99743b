import json
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.rows import write_rows
from ctscribe.measure.predictions import read_predictions
from tests.measure.conftest import MakePrediction, MakeStudies


def saved(path: Path, reports: dict[str, str]) -> Path:
    path.write_text(json.dumps(reports), encoding="utf-8")
    return path


def test_names_of_volumes_and_scans_find_their_study(
    tmp_path: Path, make_studies: MakeStudies
) -> None:
    studies = make_studies(3)
    reports = {"valid_0_a_1.nii.gz": "zero", "valid_1_a": "one", "valid_2_a_1.mha": "two"}
    rows = read_predictions(saved(tmp_path / "p.json", reports), studies)
    assert [(row.scan_id, row.patient_id, row.findings) for row in rows] == [
        ("valid_0_a", "valid_0", "zero"),
        ("valid_1_a", "valid_1", "one"),
        ("valid_2_a", "valid_2", "two"),
    ]
    assert [row.volume_name for row in rows] == [study.volume_name for study in studies]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_of_several_reconstructions_the_prepared_one_counts(
    tmp_path: Path, make_studies: MakeStudies, order: tuple[int, ...]
) -> None:
    studies = make_studies(2)
    reports = {f"valid_0_a_{i}.nii.gz": f"report {i}" for i in order}
    reports |= {f"valid_1_a_{i}.nii.gz": f"report {i}" for i in order if i != 1}
    rows = read_predictions(saved(tmp_path / "p.json", reports), studies)
    assert [(row.scan_id, row.findings) for row in rows] == [
        ("valid_0_a", "report 1"),
        ("valid_1_a", "report 2"),
    ]


def test_a_csv_and_our_rows_say_the_same(
    tmp_path: Path, make_studies: MakeStudies, make_prediction: MakePrediction
) -> None:
    studies = make_studies(2)
    ours = [make_prediction(study) for study in studies]
    write_rows(tmp_path / "p.jsonl", ours)
    assert read_predictions(tmp_path / "p.jsonl", studies) == ours
    lines = [f'{row.volume_name},"{row.findings}","{row.impression}"' for row in ours]
    path = tmp_path / "p.csv"
    path.write_text("VolumeName,Findings_EN,Impressions_EN\n" + "\n".join(lines))
    unknown = {"num_tokens": None, "finished": None}
    assert read_predictions(path, studies) == [row.model_copy(update=unknown) for row in ours]


def test_names_of_no_study_are_refused(tmp_path: Path, make_studies: MakeStudies) -> None:
    reports = {"valid_0_a_1.nii.gz": "x", **{f"valid_{i}_a_1.nii.gz": "x" for i in range(5, 9)}}
    with pytest.raises(CtscribeError, match="4 do not, such as valid_5_a_1, valid_6_a_1") as caught:
        read_predictions(saved(tmp_path / "p.json", reports), make_studies(2))
    assert caught.value.code == "E_PREDICTION"
