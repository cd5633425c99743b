import numpy as np
import pytest

from ctscribe.base.types import BoxMm
from ctscribe.scan.regions import Grid, Region, dice, draw, grid_around, match_pieces

STRAIGHT = Grid((6, 7, 8), np.diag([1.0, 2.0, 3.0, 1.0]))


def turned(degrees: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """An affine that is oblique in the axial plane."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing_mm)
    affine[:3, 3] = 10, -20, 30
    return affine


def test_a_box_in_mm_is_the_voxels_whose_centres_it_holds() -> None:
    box: BoxMm = ((1.0, 4.0, 3.0), (2.9, 6.0, 9.0))
    expected = np.zeros((6, 7, 8), bool)
    expected[1:3, 2:4, 1:4] = True
    assert (draw([Region.of_box(box)], STRAIGHT) == expected).all()


def test_axes_that_run_the_other_way_or_are_swapped_show_the_same_place() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 7, 8)) < 0.2
    flipped = STRAIGHT.affine.copy()
    flipped[0] = [-1, 0, 0, 5]
    swapped = STRAIGHT.affine[:, [2, 1, 0, 3]]
    for other, affine in ((mask[::-1], flipped), (mask.transpose(2, 1, 0), swapped)):
        region = Region.of_mask(np.ascontiguousarray(other), affine)
        assert region is not None
        assert (draw([region], STRAIGHT) == mask).all()


def test_a_box_on_an_oblique_grid_lies_where_it_is_in_millimetres() -> None:
    grid = Grid((60, 50, 20), turned(30, (0.8, 0.8, 2.0)))
    middle = (grid.affine @ [30, 25, 10, 1])[:3]
    ends = np.stack([middle - 5, middle + 5], axis=1)
    drawn = draw([Region(ends, np.eye(4))], grid)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape_xyz), indexing="ij"), axis=-1)
    at_mm = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = (np.abs(at_mm - middle) <= 5 + 1e-3).all(axis=-1)
    assert (drawn == expected).all()
    assert drawn.sum() * 0.8 * 0.8 * 2 == pytest.approx(10**3, rel=0.1)
    # its outline in voxels is no box, so it was not drawn along the grid's axes
    assert drawn.sum() < drawn.any((1, 2)).sum() * drawn.any((0, 2)).sum() * drawn.any((0, 1)).sum()


def test_a_box_of_oblique_axes_stays_oblique() -> None:
    affine = turned(45, (1.0, 1.0, 1.0))
    region = Region(np.array([[0.0, 9.0]] * 3), affine)
    assert draw([region], Grid((12, 12, 12), affine)).sum() == 1000
    around = grid_around([region])
    assert draw([region], around).sum() == pytest.approx(9 * 9 * 10, rel=0.05)
    assert np.prod(around.shape_xyz) > 1500


def test_a_mask_on_a_finer_grid_is_the_same_place() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 3, 2:5] = True
    fine = Grid((12, 14, 16), STRAIGHT.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    fine.affine[:3, 3] = STRAIGHT.affine[:3, :3] @ [-0.25, -0.25, -0.25]
    region = Region.of_mask(mask, STRAIGHT.affine)
    assert region is not None
    drawn = draw([region], fine)
    assert (drawn == mask.repeat(2, 0).repeat(2, 1).repeat(2, 2)).all()


def test_a_box_between_voxels_is_the_nearest_and_one_outside_is_none() -> None:
    thin = Region.of_box(((2.2, 4.2, 4.0), (2.3, 4.4, 4.1)))
    drawn = draw([thin], STRAIGHT)
    assert np.argwhere(drawn).tolist() == [[2, 2, 1]]
    assert not draw([Region.of_box(((50.0, 50.0, 50.0), (60.0, 60.0, 60.0)))], STRAIGHT).any()
    assert Region.of_mask(np.zeros((2, 2, 2), bool), np.eye(4)) is None


def test_pieces_are_paired_one_to_one() -> None:
    true, said = np.zeros((2, 20, 5, 5), bool)
    true[0:4], true[6:8], true[10:14] = True, True, True
    said[1:4], said[15:17] = True, True
    said[10:11], said[12:14] = True, True  # two pieces of one lesion: the larger counts
    assert match_pieces(said, true, 0.1) == (2, 4, 3)
    assert match_pieces(said, true, 0.8) == (1, 4, 3)
    assert match_pieces(said & False, true, 0.1) == (0, 0, 3)
    assert dice(said, true) == pytest.approx(2 * 6 / (8 + 10))
    assert dice(said & False, true & False) == 1
