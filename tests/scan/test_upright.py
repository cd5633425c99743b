"""A phantom scanned with a tilted gantry: rods stay straight, landmarks stay where they were."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.scan.upright import NEGLIGIBLE_DEGREES, UprightGrid, plan_upright, set_upright
from ctscribe.scan.volume import CTVolume
from tests.refusals import refusal

SHAPE = (40, 48, 30)
SPACING = (1.5, 1.2, 2.5)
ROD_MM = np.array([4.0, -3.0])
BALL_MM = np.array([-12.0, 9.0, 43.0])
Place = Callable[[np.ndarray], np.ndarray]


def leaning(degrees: float, towards: float = 90.0, along_table: bool = False) -> np.ndarray:
    """An affine whose slices lean; towards tells the direction of the lean within them.

    With `along_table` the stack runs along z and its slices are turned about x, as a tilted
    gantry leaves them; otherwise the slices are axial and the stack runs askew.
    """
    angle, direction = np.radians(degrees), np.radians(towards)
    affine = np.eye(4)
    if along_table:
        affine[:3, 1] = (0, np.cos(angle), np.sin(angle))
        affine[:3, 2] = (0, 0, 1 / np.cos(angle))
    else:
        affine[:2, 2] = np.tan(angle) * np.array([np.cos(direction), np.sin(direction)])
    affine[:3, :3] *= SPACING
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + (0, 0, 40)
    return affine


def places(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    found: np.ndarray = (
        np.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3, None, None, None]
    )
    return found


def rod(at: np.ndarray) -> np.ndarray:
    """A smooth rod along the patient's z axis."""
    far = (at[0] - ROD_MM[0]) ** 2 + (at[1] - ROD_MM[1]) ** 2
    found: np.ndarray = 1000 * np.exp(-far / (2 * 4.0**2))
    return found


def ball(at: np.ndarray) -> np.ndarray:
    far = sum((at[axis] - BALL_MM[axis]) ** 2 for axis in range(3))
    found: np.ndarray = 1000 * np.exp(-far / (2 * 4.0**2))
    return found


def scan(affine: np.ndarray, thing: Place) -> CTVolume:
    hu = -1024 + thing(places(SHAPE, affine))
    return CTVolume(np.asfortranarray(hu.astype(np.float32)), affine)


def stood(volume: CTVolume, limit: float = 30.0) -> tuple[CTVolume, UprightGrid]:
    plan = plan_upright(volume.shape_xyz, volume.affine, limit, "s")
    assert plan is not None
    return set_upright(volume, plan), plan


def centre_mm(weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.array([(weights * at[axis]).sum() / weights.sum() for axis in range(3)])


CASES = [
    (5.0, 90.0, False),
    (-15.0, 90.0, False),
    (15.0, 0.0, False),
    (25.0, 200.0, False),
    (20.0, 0.0, True),
    (-20.0, 0.0, True),
]


@pytest.mark.parametrize(("degrees", "towards", "along_table"), CASES)
def test_a_rod_stays_straight(degrees: float, towards: float, along_table: bool) -> None:
    volume, plan = stood(scan(leaning(degrees, towards, along_table), rod))
    assert plan.tilt_degrees == pytest.approx(abs(degrees), abs=0.01)
    at = places(volume.shape_xyz, volume.affine)
    weights = np.maximum(volume.hu + 1024 - 100, 0)
    for z in range(volume.shape_xyz[2]):
        x_mm, y_mm, _ = centre_mm(weights[:, :, z], at[:, :, :, z])
        assert abs(x_mm - ROD_MM[0]) < 0.1 * SPACING[0]
        assert abs(y_mm - ROD_MM[1]) < 0.1 * SPACING[1]


@pytest.mark.parametrize(("degrees", "towards", "along_table"), CASES)
def test_a_landmark_stays_within_half_a_voxel(
    degrees: float, towards: float, along_table: bool
) -> None:
    volume, _ = stood(scan(leaning(degrees, towards, along_table), ball))
    found = centre_mm(np.maximum(volume.hu + 1024, 0), places(volume.shape_xyz, volume.affine))
    assert (np.abs(found - BALL_MM) < 0.1 * np.array(SPACING)).all()


@pytest.mark.parametrize(("degrees", "towards", "along_table"), CASES)
def test_the_grid_is_rectangular_and_nothing_is_cut(
    degrees: float, towards: float, along_table: bool
) -> None:
    source = scan(leaning(degrees, towards, along_table), rod)
    volume, _ = stood(source)
    axes = volume.affine[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert volume.spacing_mm[:2] == pytest.approx(SPACING[:2])
    amount, before = (float((one.hu + 1024).sum()) for one in (volume, source))
    assert amount == pytest.approx(before, rel=1e-4)


def test_every_slice_moves_by_itself_and_air_comes_in() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 1.0  # each slice one voxel further right: whole voxels, so exact
    hu = np.random.default_rng(0).integers(-1000, 1000, (5, 4, 3), dtype=np.int16)
    volume, plan = stood(CTVolume(hu, affine))
    assert plan.shape_xyz == (7, 4, 3)
    expected = np.full((7, 4, 3), -1024, dtype=np.int16)
    for z in range(3):
        expected[z : z + 5, :, z] = hu[:, :, z]
    np.testing.assert_array_equal(volume.hu, expected)
    assert volume.hu.dtype == np.int16


@given(st.floats(0.0, NEGLIGIBLE_DEGREES - 0.01), st.floats(0, 360))
def test_what_hardly_leans_is_left_alone(degrees: float, towards: float) -> None:
    assert plan_upright(SHAPE, leaning(degrees, towards), 30.0, "s") is None


def test_limits() -> None:
    with refusal("E_SHEAR", r"10 degrees off .* 15\.0 degrees off") as caught:
        plan_upright(SHAPE, leaning(15), 10.0, "scan-7")
    assert caught.value.sentence.startswith("scan-7 must ")
    within = np.diag([1.0, 1.0, 2.0, 1.0])
    within[0, 1] = 0.1
    with refusal("E_SHEAR", "rows and columns at right angles"):
        plan_upright(SHAPE, within, 45.0, "scan-7")
    with refusal("E_TOO_LARGE", "once it stands upright"):
        plan_upright((20_724, 20_724, 5), leaning(30), 45.0, "scan-7")
