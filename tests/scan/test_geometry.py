import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.volume import CTVolume, agree, check_affine, lps_affine, note_unusual


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
    with pytest.raises(CtscribeError) as caught:
        check_affine(affine.astype(float), "train_1_a_1.nii.gz")
    assert caught.value.code == code
    assert caught.value.sentence.startswith("train_1_a_1.nii.gz must have")


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
    assert agree(affine, affine * 1.001)
    assert not agree(affine, np.diag([0.8, 0.8, 5.0, 1.0]))
    assert not agree(affine, np.diag([-0.8, 0.8, 2.0, 1.0]))
    moved = affine.copy()
    moved[2, 3] = 10
    assert not agree(affine, moved)


def test_lps_becomes_ras() -> None:
    affine = lps_affine((0.7, 0.8, 2.0), (-170.0, -160.0, 300.0))
    np.testing.assert_allclose(np.diag(affine), (-0.7, -0.8, 2.0, 1.0))
    np.testing.assert_allclose(affine[:3, 3], (170.0, 160.0, 300.0))
