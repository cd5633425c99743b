import json
from collections.abc import Callable

from ctscribe import RESEARCH_USE
from ctscribe.export.report import PatientReport
from ctscribe.export.report_json import SCHEMA, to_json

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


def test_a_crop_says_of_which_slice_and_where(looked_again: PatientReport) -> None:
    value = to_json(looked_again)
    assert json.loads(json.dumps(value))["slices"] == [
        {"slice_index": 87, "position_mm": -142.5},
        {"slice_index": 51, "position_mm": 12.0},
        *(
            {
                "slice_index": index,
                "position_mm": z,
                "second_look": {
                    "number": number,
                    "box_mm": [0.0, 8.0, 20.0, 10.0],
                    "center_mm": [31.0, -4.0, z],
                    "pixel_spacing_mm": [0.5, 0.5],
                },
            }
            for number, index, z in ((1, 87, -142.5), (2, 51, 12.0))
        ),
    ]
    assert value["provenance"]["lead_sha256"] == "c3" * 32


def test_no_field_has_room_for_patient_data(make_report: MakeReport) -> None:
    assert set(to_json(make_report())) == {
        "schema", "use", "status", "verified", "study", "findings", "impression", "labels",
        "warnings", "slices", "model_windows", "source_kind", "geometry", "provenance",
        "intended_use", "sentences", "not_assessable",
    }  # fmt: skip
