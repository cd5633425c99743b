"""Cells that show a lesion, and what the answers about cells and volumes cost."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ctscribe.learn.model.cells import (
    attention_loss,
    cell_targets,
    localisation_loss,
    positive_weights,
)
from ctscribe.scan.boxes import boxes_in_frames, reach_of_frames, reach_of_slices
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
    assert cell_targets(boxes, [], reach_of_slices((3, 2)), (56, 84), side_px=7).sum() == 0


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
    found = cell_targets(
        np.array([box], dtype=np.float64), [NODULE], reach_of_frames(STUDY), (56, 84), side_px=7
    )
    assert found.shape == (2 * 2 * 3, 16, 18)
    assert cells(found) == expected


@pytest.mark.parametrize(
    ("slices", "pairs"),
    [
        ((17, 18), []),  # between the two slabs
        ((19, 19), [0]),  # in the lowest slice of a slab
        ((24, 24), [0]),  # between two slices and in both slabs
        ((33, 35), [0]),  # from the highest slab upwards
        ((8, 31), [0, 1]),
        ((36, 37), []),
    ],
)
def test_a_slab_shows_a_lesion_wherever_in_it_it_lies(
    slices: tuple[int, int], pairs: list[int]
) -> None:
    study = STUDY.model_copy(
        update={
            "slice_indices": (30, 20, 12, 8),
            "reach_z": ((23.6, 33.4), (18.6, 24.4), (9.6, 15.4), (2.6, 9.4)),
        }
    )
    box = np.array([[(36, 39), (8, 11), slices]], dtype=np.float64)
    found = cells(cell_targets(box, [NODULE], reach_of_frames(study), (56, 84), side_px=7))
    assert found == [[pair, 1, 5] for pair in pairs]


def test_a_shift_moves_targets_with_the_frames() -> None:
    box = np.array([[[1, 5], [1, 5], [20, 20]]], dtype=np.float64)
    found = cell_targets(box, [NODULE], reach_of_frames(STUDY), (56, 84), (28, 56), side_px=7)
    assert cells(found) == [[0, 4, 8]]


def test_the_loss_by_hand() -> None:
    cells, volumes = torch.randn(5, 16, 18), torch.randn(2, 18)
    cell_targets, volume_targets = torch.rand(5, 16, 18).round(), torch.rand(2, 18).round()
    loss = localisation_loss(cells, volumes, cell_targets, volume_targets, torch.full((18,), 3.0))
    each = torch.where(cell_targets > 0, 3.0, 1.0)
    nats = binary_cross_entropy_with_logits(cells, cell_targets, reduction="none")
    by_hand = ((each * nats).sum((0, 1)) / each.sum((0, 1))).mean()
    by_hand += binary_cross_entropy_with_logits(volumes, volume_targets)
    torch.testing.assert_close(loss, by_hand)


def test_weights_favour_rare_findings_within_bounds() -> None:
    positives = torch.tensor([0.0, 1.0, 100.0, 500.0, 1000.0] + [10.0] * 13)
    weights = positive_weights(positives, torch.full((18,), 1000.0))
    assert weights[:5].tolist() == pytest.approx([1000.0, 999.0, 9.0, 1.0, 1.0])


def test_a_finding_without_a_place_teaches_its_volume_alone() -> None:
    cells = torch.randn(6, 16, 18, requires_grad=True)
    volumes = torch.randn(2, 18)
    targets, labels = torch.zeros(6, 16, 18), torch.ones(2, 18)
    known = torch.ones(6, 18, dtype=torch.bool)
    known[:4, 9] = False
    loss = localisation_loss(cells, volumes, targets, labels, torch.full((18,), 3.0), known)
    (slope,) = torch.autograd.grad(loss, cells)
    assert bool((slope[:4, :, 9] == 0).all())
    assert bool((slope[4:] != 0).all())
    every = torch.ones_like(known)
    arguments = (cells, volumes, targets, labels, torch.full((18,), 3.0))
    torch.testing.assert_close(localisation_loss(*arguments, every), localisation_loss(*arguments))


def test_attention_loss_by_hand() -> None:
    cells, targets = torch.randn(5, 16, 18), torch.zeros(5, 16, 18)
    targets[1, 3, 9] = targets[2, 0, 9] = targets[4, 5, 2] = 1
    first, second = cells[:3].flatten(0, 1).softmax(0), cells[3:].flatten(0, 1).softmax(0)
    shares = torch.stack([first[16 + 3, 9] + first[32, 9], second[16 + 5, 2]])
    torch.testing.assert_close(attention_loss(cells, targets, [3, 2]), -shares.log().mean())
    assert attention_loss(cells, torch.zeros_like(targets), [3, 2]) == 0
