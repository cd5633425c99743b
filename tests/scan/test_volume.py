import numpy as np
import pytest

from ctscribe.scan.volume import (
    CTVolume,
    affines_agree,
    check_affine,
    lps_affine,
    note_unusual,
    spacing_of,
    to_ras,
)
from tests.refusals import refusal
from tests.scans import ORIENTATIONS, stored_as


@pytest.fixture(scope="module")
def marked() -> CTVolume:
    hu = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    affine = np.diag([0.7, 0.8, 2.0, 1.0])
    affine[:3, 3] = (-20.0, 13.0, 400.0)
    return CTVolume(hu, affine)


def test_there_are_48() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back(marked: CTVolume, orientation: str) -> None:
    stored = stored_as(marked, orientation)
    assert stored.orientation == orientation
    back = to_ras(stored)
    assert back.orientation == "RAS"
    np.testing.assert_array_equal(back.hu, marked.hu)
    np.testing.assert_allclose(back.affine, marked.affine, atol=1e-12)


def test_oblique_axes_go_to_the_nearest(marked: CTVolume) -> None:
    turn = np.eye(4)
    angle = np.radians(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = CTVolume(marked.hu, turn @ marked.affine)
    back = to_ras(stored_as(oblique, "RAS"))
    np.testing.assert_allclose(back.affine, oblique.affine)
    assert back.spacing_mm == pytest.approx((0.7, 0.8, 2.0))


def test_voxels_are_not_copied(marked: CTVolume) -> None:
    assert np.shares_memory(to_ras(stored_as(marked, "LPS")).hu, marked.hu)


def test_spacing_of_axes() -> None:
    assert spacing_of(np.diag([-3.0, 4.0, 5.0, 1.0])) == (3.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("affine", "code"),
    [
        (np.full((4, 4), np.nan), "E_AFFINE"),
        (np.full((4, 4), 1e200), "E_AFFINE"),
        (np.diag([0.8, 0.8, 0.0, 1.0]), "E_AFFINE"),
        (np.diag([0.8, 0.8, 30.0, 1.0]), "E_SPACING"),
        (np.diag([0.01, 0.8, 1.0, 1.0]), "E_SPACING"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "E_AFFINE"),
    ],
)
def test_impossible_affines(affine: np.ndarray, code: str) -> None:
    with refusal(code) as caught:
        check_affine(affine.astype(float), "train_1_a_1.nii.gz")
    assert caught.value.sentence.startswith("train_1_a_1.nii.gz must have")


def test_an_impossible_spacing_is_named() -> None:
    affine = np.diag([0.8, 0.7, 30.0, 1.0])
    affine[:3, 3] = 5.0
    with refusal("E_SPACING", "but has 0.8 x 0.7 x 30 mm"):
        check_affine(affine, "scan 1")


@pytest.mark.parametrize(
    ("spacing", "width", "codes"),
    [
        ((0.7, 0.7, 1.5), 500, set()),
        ((3.0, 3.0, 3.0), 100, {"W_SPACING"}),
        ((0.7, 0.7, 12.0), 500, {"W_SPACING"}),
        ((0.1, 0.1, 1.0), 2000, {"W_SPACING"}),
        ((0.7, 0.7, 1.5), 200, {"W_FIELD"}),
        ((1.5, 1.5, 1.5), 500, {"W_FIELD"}),
    ],
)
def test_an_unusual_grid_is_warned_about(
    spacing: tuple[float, ...], width: int, codes: set[str]
) -> None:
    hu = np.broadcast_to(np.int16(0), (width, width, 30))
    assert note_unusual(CTVolume(hu, np.diag([*spacing, 1.0]))).codes == codes


def test_agreement() -> None:
    affine = np.diag([0.8, 0.8, 2.0, 1.0])
    assert affines_agree(affine, affine * 1.001)
    assert not affines_agree(affine, np.diag([0.8, 0.8, 5.0, 1.0]))
    assert not affines_agree(affine, np.diag([-0.8, 0.8, 2.0, 1.0]))
    moved = affine.copy()
    moved[2, 3] = 10
    assert not affines_agree(affine, moved)


def test_lps_becomes_ras() -> None:
    affine = lps_affine((0.7, 0.8, 2.0), (-170.0, -160.0, 300.0))
    np.testing.assert_allclose(np.diag(affine), (-0.7, -0.8, 2.0, 1.0))
    np.testing.assert_allclose(affine[:3, 3], (170.0, 160.0, 300.0))
