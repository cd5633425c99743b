import json
from collections.abc import Callable

from ctscribe.base.about import RESEARCH_USE
from ctscribe.show.patient_report import SCHEMA, PatientReport, to_json

MakeReport = Callable[..., PatientReport]


def test_the_dictionary_is_json_and_holds_everything_but_images(make_report: MakeReport) -> None:
    value = to_json(make_report(warnings=("w",)))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["schema"] == SCHEMA == "ctscribe.report/1"
    assert value["use"] == RESEARCH_USE
    assert (value["status"], value["verified"]) == ("preliminary", False)
    assert value["slices"] == [
        {"slice_index": 87, "position_mm": -142.5},
        {"slice_index": 51, "position_mm": 12.0},
    ]
    assert value["labels"][1] == {
        "finding": "Lung nodule",
        "status": "present",
        "sentences": ["A nodule of 6 mm is seen.", "Nodule in the left lung."],
        "probability": None,
    }
    assert value["geometry"]["Source"]["spacing_mm"] == [0.84, 0.84, 5.0]
    assert value["provenance"]["weights_sha256"] == "a1" * 32
    assert len(value["intended_use"]) == 6


def test_no_field_has_room_for_patient_data(make_report: MakeReport) -> None:
    assert set(to_json(make_report())) == {
        "schema", "use", "status", "verified", "study", "findings", "impression", "labels",
        "warnings", "slices", "model_windows", "source_kind", "geometry", "provenance",
        "intended_use", "sentences", "not_assessable",
    }  # fmt: skip
