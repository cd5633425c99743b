import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.files import read_json
from ctscribe.base.rows import Lesion, TruthRow, write_rows
from ctscribe.cli.app import app
from ctscribe.measure.grounding import GROUNDING, HIT_DICE, ground
from ctscribe.measure.places import read_places
from ctscribe.show.trust_tables import grounding_tables
from ctscribe.write.evidence import EvidenceRow, PairEvidence, SentenceEvidence
from tests.refusals import refusal
from tests.studies import study_row, write_prepared

NODULE, EFFUSION = "Lung nodule", "Pleural effusion"
OBLIQUE = np.array(
    [[0.6, -0.8, 0, -30], [0.8, 0.6, 0, 20], [0, 0, 2, 100], [0, 0, 0, 1]], dtype=float
)
SHAPE = (20, 24, 12)
Box = tuple[slice, slice, slice]
NEAR: Box = (slice(2, 6), slice(3, 9), slice(1, 4))
FAR: Box = (slice(12, 16), slice(15, 21), slice(6, 9))


def mask_of(*boxes: Box) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray = OBLIQUE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), path)


def values(found: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: found[name]["value"] for name in GROUNDING}


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Two nodules in one volume, an effusion in another, nothing in a third."""
    folder = tmp_path / "reference"
    write_mask(folder / "valid_1_a_1" / "lung_nodule.nii.gz", mask_of(NEAR, FAR))
    write_mask(folder / "valid_2_a_1" / "pleural_effusion.nii.gz", mask_of(NEAR))
    write_mask(folder / "valid_3_a_1" / "lung_nodule.nii.gz", mask_of())
    return folder


def test_the_masks_themselves_are_right_however_their_axes_run(
    reference: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    # stored with the first axis the other way round, and axes swapped: the same places in mm
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = SHAPE[0] - 1
    flipped = np.ascontiguousarray(mask_of(NEAR, FAR)[::-1]), OBLIQUE @ flip
    write_mask(said / "valid_1_a_1" / "Lung nodule.nii.gz", *flipped)
    swapped = mask_of(NEAR).transpose(1, 0, 2), OBLIQUE[:, [1, 0, 2, 3]]
    write_mask(said / "valid_2_a_1" / "Pleural effusion.nii.gz", *swapped)
    found = ground(said, reference, None)
    perfect = dict.fromkeys(GROUNDING, 1.0) | {"false_findings": 0.0}
    assert values(found["scores"]) == perfect
    assert found["n"] == {"volumes": 3, "patients": 3, "findings": 2}
    assert found["missing"] == ["valid_3_a_1"]


def test_boxes_in_voxels_and_in_mm_are_drawn_on_the_scan(reference: Path, tmp_path: Path) -> None:
    said = tmp_path / "boxes.jsonl"
    first, last = ([axis.start for axis in NEAR], [axis.stop - 1 for axis in NEAR])
    middle = (OBLIQUE @ [*(np.add(first, last) / 2), 1])[:3]
    rows = [
        {"volume_name": "valid_1_a_1.nii.gz", "finding": NODULE, "box_voxels": [first, last]},
        {
            "volume_name": "valid_2_a_1",
            "finding": EFFUSION,
            "box_mm": [(middle - 0.1).tolist(), (middle + 0.1).tolist()],
        },
    ]
    said.write_text("\n".join(map(json.dumps, rows)))
    found = ground(said, reference, None)
    by_name = {row["finding"]: row for row in found["per_finding"]}
    assert by_name[NODULE]["dice"]["value"] == pytest.approx(2 * 72 / (72 + 144))
    assert by_name[NODULE]["instance_f1"]["value"] == pytest.approx(2 / 3)
    # one voxel of 72 is touched, which is no hit
    assert by_name[EFFUSION]["dice"]["value"] == pytest.approx(2 / 73)
    assert by_name[EFFUSION]["touch_rate"]["value"] == 1
    assert by_name[EFFUSION]["hit_rate"]["value"] == 0
    assert found["scores"]["hit_rate"]["value"] == 0.5
    assert f"{HIT_DICE:g}" in found["scores"]["hit_rate"]["signature"]


def test_a_finding_not_pointed_at_scores_0_and_one_too_many_is_false(
    reference: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    write_mask(said / "valid_1_a_1" / "pleural_effusion.nii.gz", mask_of(NEAR))
    write_mask(said / "valid_1_a_1" / "emphysema.nii.gz", mask_of())
    write_mask(said / "valid_3_a_1" / "lung_nodule.nii.gz", mask_of(NEAR, FAR))
    write_mask(said / "valid_9_a_1" / "lung_nodule.nii.gz", mask_of(NEAR))
    found = ground(said, reference, None)
    assert values(found["scores"]) == {
        "dice": 0.0,
        "hit_rate": 0.0,
        "touch_rate": 0.0,
        "instance_f1": 0.0,
        "instance_precision": 0.0,
        "instance_recall": 0.0,
        "false_findings": 2 / 3,
    }
    assert found["missing"] == ["valid_2_a_1"]
    assert found["passed_over"] == 1
    (table,) = grounding_tables(found)
    assert [row[0] for row in table.rows] == [NODULE, EFFUSION, "All"]
    assert "1 volumes have no prediction" in table.notes[1]


def test_nothing_said_and_nothing_there_is_undefined(tmp_path: Path) -> None:
    write_mask(tmp_path / "one" / "valid_1_a_1" / "lung_nodule.nii.gz", mask_of())
    found = ground(tmp_path / "one", tmp_path / "one", None)
    assert found["n"]["findings"] == 0
    assert values(found["scores"]) == dict.fromkeys(GROUNDING) | {"false_findings": 0.0}


def test_masks_of_sentences_are_compared_sentence_by_sentence(tmp_path: Path) -> None:
    listed = {"0": "A nodule in the left lung.", "1": "A rib is broken."}
    for folder, masks in (
        ("true", [mask_of(NEAR), mask_of(FAR)]),
        ("said", [mask_of(NEAR), mask_of(NEAR)]),
    ):
        write_mask(tmp_path / folder / "valid_1_a_1.nii.gz", np.stack(masks))
    study = {"name": "valid_1_a_1.nii.gz", "findings": listed}
    (tmp_path / "true" / "dataset.json").write_text(json.dumps({"test": [study]}))
    found = ground(tmp_path / "said", tmp_path / "true", None)
    # the second sentence is none of the 18 findings, and counts all the same
    assert found["n"]["findings"] == 2
    assert found["scores"]["dice"]["value"] == 0.5
    assert found["scores"]["hit_rate"]["value"] == 0.5
    assert found["scores"]["instance_f1"]["value"] == 0.5
    assert found["per_finding"] == []


def truth(volume: str, *boxes: tuple[tuple[float, ...], tuple[float, ...]]) -> TruthRow:
    about = {"finding": NODULE, "size_mm": 3, "side": "left", "lobe": None, "sentence": "A nodule."}
    lesions = [Lesion.model_validate({**about, "box_mm": box, "slices": (1, 1)}) for box in boxes]
    return TruthRow(volume_name=volume, scan_id=volume[:9], lesions=tuple(lesions))


def evidence(volume: str, box_px: tuple[int, int, int, int] | None) -> EvidenceRow:
    pair = PairEvidence(
        pair=1, slice_indices=(10, 0), position_mm=(30.0, 0.0), drop=1.0, attention=0.5,
        box_px=box_px,
    )  # fmt: skip
    sentence = SentenceEvidence(
        section="findings", text="A nodule.", findings=(NODULE,), log_prob=-1.0, num_tokens=3,
        particular=True, pairs=(pair,),
    )  # fmt: skip
    names = {"scan_id": volume[:9], "patient_id": volume[:7], "volume_name": volume}
    return EvidenceRow(**names, sentences=(sentence,))


def test_a_runs_evidence_is_put_where_its_frames_show_it(tmp_path: Path) -> None:
    # Frames of 2 mm, columns towards the patient's left, rows towards the back, 3 mm slices.
    to_ras = ((-2.0, 0, 0, 100.0), (0, -2.0, 0, 80.0), (0, 0, 3.0, -50.0), (0, 0, 0, 1.0))
    names = [f"valid_{n}_a_1.nii.gz" for n in range(3)]
    studies = [
        study_row(name, frame_to_ras=to_ras, slice_indices=(30, 20, 10, 0)) for name in names
    ]
    prepared = write_prepared(tmp_path / "prepared", studies)
    write_rows(
        tmp_path / "evidence.jsonl",
        [evidence(names[0], (10, 20, 14, 26)), evidence(names[1], None)],
    )
    # columns 10 to 13 are x = 80 to 74, rows 20 to 25 y = 40 to 30; z of slices 0 to 10 as thick
    # as one: −0.5 to 10.5 is −51.5 to −18.5
    there = (74.0, 30.0, -51.5), (80.0, 40.0, -18.5)
    missed = (0.0, 0.0, -50.0), (5.0, 5.0, -40.0)
    write_rows(
        tmp_path / "truth.jsonl",
        [truth(names[0], there), truth(names[1], missed), truth(names[2])],
    )
    found = ground(tmp_path / "evidence.jsonl", tmp_path / "truth.jsonl", prepared)
    assert found["n"]["findings"] == 2
    assert found["scores"]["dice"]["value"] == 0.5
    assert found["missing"] == ["valid_2_a_1"]
    with refusal("E_OPTION", "--prepared"):
        read_places(tmp_path / "evidence.jsonl")
    write_rows(tmp_path / "other.jsonl", [evidence("valid_8_a_1.nii.gz", None)])
    with refusal("E_PREDICTION", "valid_8_a_1"):
        read_places(tmp_path / "other.jsonl", prepared)


@pytest.mark.parametrize(
    ("row", "code", "match"),
    [
        ({"finding": "Nodules", "box_mm": [[0, 0, 0], [1, 1, 1]]}, "E_ROW", "18"),
        ({"finding": NODULE}, "E_ROW", "box_mm or"),
        ({"finding": NODULE, "box_mm": [[0, 0, 2], [1, 1, 1]]}, "E_ROW", "lower to its upper"),
        ({"finding": NODULE, "box_voxels": [[0, 0, 0], [1, 1, 1]]}, "E_WHERE", "masks of valid_1"),
    ],
)
def test_what_is_no_box_is_refused(
    row: dict[str, object], code: str, match: str, tmp_path: Path
) -> None:
    said, true = tmp_path / "boxes.jsonl", tmp_path / "truth.jsonl"
    said.write_text(json.dumps({"volume_name": "valid_1_a_1.nii.gz", **row}))
    write_rows(true, [truth("valid_1_a_1.nii.gz", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))])
    with refusal(code, match):
        ground(said, true, None)


def test_predictions_of_other_volumes_are_refused(reference: Path, tmp_path: Path) -> None:
    write_mask(tmp_path / "said" / "valid_9_a_1" / "lung_nodule.nii.gz", mask_of(NEAR))
    with refusal("E_PREDICTION", "names 1 others"):
        ground(tmp_path / "said", reference, None)


def test_the_command_writes_and_prints(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grounding.json"
    tokens = ["ground", str(reference), str(reference), "--out", str(out)]
    app(tokens, exit_on_error=False, result_action="return_value")
    assert read_json(out)["scores"]["dice"]["value"] == 1
    assert "Instance F1" in capsys.readouterr().out
