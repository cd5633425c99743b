import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from ctscribe.scan.volume import CTVolume, spacing_of, to_ras
from tests.scans import ORIENTATIONS


@pytest.fixture(scope="module")
def marked() -> CTVolume:
    hu = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    affine = np.diag([0.7, 0.8, 2.0, 1.0])
    affine[:3, 3] = (-20.0, 13.0, 400.0)
    return CTVolume(hu, affine)


def stored_as(volume: CTVolume, orientation: str) -> CTVolume:
    """The same volume along other axes, by nibabel."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = volume.affine @ inv_ornt_aff(change, volume.hu.shape)
    return CTVolume(apply_orientation(volume.hu, change), affine)


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
