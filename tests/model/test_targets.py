import numpy as np
import pytest

from ctscribe.model.targets import boxes_in_frames, token_targets
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import StudyRow

# 2 mm pixels, patient's right on the left: x falls with the column, y with the row; 5 mm slices
FRAME_TO_RAS = ((-2.0, 0.0, 0.0, 80.0), (0.0, -2.0, 0.0, 60.0), (0.0, 0.0, 5.0, -100.0))
NODULE = FINDINGS.index("Lung nodule")


def study() -> StudyRow:
    return StudyRow(
        volume_name="train_1_a_1.nii.gz",
        patient_id="train_1",
        scan_id="train_1_a",
        source_split="train",
        findings="A nodule.",
        impression="Nodule.",
        labels=None,
        spacing_mm=(2.0, 2.0, 5.0),
        shape_xyz=(84, 56, 40),
        slice_indices=(30, 20, 10, 0),
        position_mm=(50.0, 0.0, -50.0, -100.0),
        frame_to_ras=(*FRAME_TO_RAS, (0.0, 0.0, 0.0, 1.0)),
    )


def test_millimetres_become_pixels_and_slices() -> None:
    # columns 30..34, rows 10..20, slices 19..21
    boxes = boxes_in_frames(study(), [((12.0, 20.0, -5.0), (20.0, 40.0, 5.0))])
    assert boxes.shape == (1, 3, 2)
    assert boxes[0].tolist() == [[30.0, 34.0], [10.0, 20.0], [19.0, 21.0]]


def test_no_boxes_are_no_targets() -> None:
    boxes = boxes_in_frames(study(), [])
    assert boxes.shape == (0, 3, 2)
    assert token_targets(boxes, [], (3, 2), (56, 84)).sum() == 0


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # a nodule of 5 px inside the middle token of the first row, seen in the first pair
        (((30, 34), (10, 14), (19, 21)), [(0, 0, 1)]),
        # between slices 20 and 10: not seen
        (((30, 34), (10, 14), (13, 17)), []),
        # on the border of two tokens, half in each
        (((26, 29), (10, 14), (10, 10)), [(1, 0, 0), (1, 0, 1)]),
        # touching the next token with one pixel of eight
        (((21, 28), (10, 14), (10, 10)), [(1, 0, 0)]),
        # larger than tokens: all that it covers by a quarter
        (((0, 83), (27, 55), (0, 30)), [(p, 1, c) for p in (0, 1) for c in range(3)]),
        # outside the frame
        (((-30, -10), (0, 20), (0, 30)), []),
    ],
)
def test_tokens_that_show_a_lesion(
    box: tuple[tuple[int, int], ...], expected: list[tuple[int, int, int]]
) -> None:
    found = token_targets(
        np.array([box], dtype=np.float64), [NODULE], study().slice_indices, (56, 84)
    )
    assert found.shape == (2, 2, 3, 18)
    assert [tuple(place[:3]) for place in np.argwhere(found).tolist()] == expected
    assert set(np.argwhere(found)[:, 3]) <= {NODULE}


def test_a_shift_moves_targets_with_the_frames() -> None:
    box = np.array([[[2, 6], [2, 6], [20, 20]]], dtype=np.float64)
    found = token_targets(box, [NODULE], study().slice_indices, (56, 84), (28, 56))
    assert np.argwhere(found)[:, :3].tolist() == [[0, 1, 2]]
