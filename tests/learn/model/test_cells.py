import numpy as np
import pytest

from ctscribe.learn.model.cells import cell_targets
from ctscribe.scan.boxes import boxes_in_frames
from ctscribe.text.findings import FINDINGS
from tests.studies import study_row

# 2 mm pixels, patient's right on the left: x falls with the column, y with the row; 5 mm slices
FRAME_TO_RAS = ((-2.0, 0.0, 0.0, 80.0), (0.0, -2.0, 0.0, 60.0), (0.0, 0.0, 5.0, -100.0))
NODULE = FINDINGS.index("Lung nodule")


STUDY = study_row(
    "train_1_a_1.nii.gz",
    slice_indices=(30, 20, 10, 0),
    frame_to_ras=(*FRAME_TO_RAS, (0.0, 0.0, 0.0, 1.0)),
)


def test_millimetres_become_pixels_and_slices() -> None:
    # columns 30..34, rows 10..20, slices 19..21
    boxes = boxes_in_frames(STUDY, [((12.0, 20.0, -5.0), (20.0, 40.0, 5.0))])
    assert boxes.shape == (1, 3, 2)
    assert boxes[0].tolist() == [[30.0, 34.0], [10.0, 20.0], [19.0, 21.0]]


def test_no_boxes_are_no_targets() -> None:
    boxes = boxes_in_frames(STUDY, [])
    assert boxes.shape == (0, 3, 2)
    assert cell_targets(boxes, [], (3, 2), (56, 84)).sum() == 0


def cells(found: "np.ndarray[tuple[int, int, int], np.dtype[np.float32]]") -> list[list[int]]:
    """(slice pair, cell row, cell column) of every target, for frames of 2 × 3 tokens."""
    image = found[..., NODULE].reshape(2, 2, 3, 4, 4).transpose(0, 1, 3, 2, 4).reshape(2, 8, 12)
    assert found.sum() == image.sum()
    places: list[list[int]] = np.argwhere(image).tolist()
    return places


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # a nodule of 4 px inside one cell, seen in the first pair
        (((36, 39), (8, 11), (19, 21)), [[0, 1, 5]]),
        # between slices 20 and 10: not seen
        (((36, 39), (8, 11), (13, 17)), []),
        # on the border of two cells and two tokens, half in each
        (((26, 29), (8, 11), (10, 10)), [[1, 1, 3], [1, 1, 4]]),
        # touching the next cell with one pixel of five
        (((24, 28), (8, 11), (10, 10)), [[1, 1, 3]]),
        # larger than cells: all that it covers by a quarter, the last row by two pixels of seven
        (((0, 13), (28, 36), (0, 30)), [[p, r, c] for p in (0, 1) for r in (4, 5) for c in (0, 1)]),
        # outside the frame
        (((-30, -10), (0, 20), (0, 30)), []),
    ],
)
def test_cells_that_show_a_lesion(
    box: tuple[tuple[int, int], ...], expected: list[list[int]]
) -> None:
    found = cell_targets(np.array([box], dtype=np.float64), [NODULE], STUDY.slice_indices, (56, 84))
    assert found.shape == (2 * 2 * 3, 16, 18)
    assert cells(found) == expected


def test_a_shift_moves_targets_with_the_frames() -> None:
    box = np.array([[[1, 5], [1, 5], [20, 20]]], dtype=np.float64)
    found = cell_targets(box, [NODULE], STUDY.slice_indices, (56, 84), (28, 56))
    assert cells(found) == [[0, 4, 8]]
