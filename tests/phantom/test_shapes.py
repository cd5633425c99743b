import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.phantom.shapes import Capsule, Column, Ellipsoid, Region, Shape, tube, union

SHAPES: tuple[Shape, ...] = (
    Ellipsoid((3.0, -4.0, 5.0), (12.0, 7.0, 9.0), turn_rad=0.6, tilt_rad=-0.4),
    Ellipsoid((0.0, 0.0, 0.0), (20.0, 3.0, 11.0), wave_mm=2.0, phase=1.0),
    Capsule((-5.0, 0.0, 0.0), (9.0, 6.0, 14.0), 4.0, 2.0),
    Column(((-20.0, 1.0, 2.0, 8.0, 5.0), (20.0, -3.0, 0.0, 12.0, 9.0)), square=0.3),
)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_a_solid_lies_outside_its_box(shape: Shape) -> None:
    points = np.random.default_rng(0).uniform(-45, 45, (60_000, 3)).astype(np.float32)
    inside = points[shape.depth(*points.T) > 0]
    low, high = shape.bounds()
    assert len(inside)
    assert (inside >= np.asarray(low) - 1e-3).all()
    assert (inside <= np.asarray(high) + 1e-3).all()


@given(st.floats(2, 30), st.floats(2, 30), st.floats(2, 30))
def test_ellipsoid_depth_is_zero_on_the_surface(a: float, b: float, c: float) -> None:
    shape = Ellipsoid((1.0, 2.0, 3.0), (a, b, c))
    tips = np.array([[1 + a, 2, 3], [1, 2 - b, 3], [1, 2, 3 + c]], dtype=np.float32)
    np.testing.assert_allclose(shape.depth(*tips.T), 0, atol=1e-3)
    middle = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    np.testing.assert_allclose(shape.depth(*middle), min(a, b, c), rtol=1e-5)


def test_capsule_depth_is_the_distance_to_its_tapering_surface() -> None:
    shape = Capsule((0.0, 0.0, 0.0), (0.0, 0.0, 10.0), 4.0, 2.0)
    points = np.array([[1, 0, 0], [1, 0, 5], [0, 7, 10], [0, 0, -6]], dtype=np.float32)
    np.testing.assert_allclose(shape.depth(*points.T), [3, 2, -5, -2], atol=1e-4)


def test_square_column_stays_a_solid_far_from_its_axis() -> None:
    shape = Column(((0.0, 0.0, 0.0, 10.0, 10.0), (10.0, 0.0, 0.0, 10.0, 10.0)), square=0.5)
    far = np.array([[95.0], [90.0], [5.0]], dtype=np.float32)
    assert np.isfinite(shape.depth(*far)).all()
    assert shape.depth(*far) < 0


def test_grids_and_points_give_the_same_depth() -> None:
    x, y = (
        axis[None].astype(np.float32)
        for axis in np.meshgrid(np.linspace(-15, 15, 9), np.linspace(-12, 12, 7))
    )
    z = np.linspace(-10, 10, 5, dtype=np.float32)[:, None, None]
    points = [np.asarray(axis).reshape(-1) for axis in np.broadcast_arrays(x, y, z)]
    for shape in SHAPES:
        on_grid = shape.depth(x, y, z).reshape(-1)
        np.testing.assert_allclose(on_grid, shape.depth(*points), atol=1e-3)


def test_union_and_tube() -> None:
    pieces = tube([(0.0, 0.0, 0.0), (0.0, 0.0, 5.0), (4.0, 0.0, 9.0)], [1.0, 2.0, 3.0])
    assert [(p.radius_mm, p.end_radius_mm) for p in pieces] == [(1.0, 2.0), (2.0, 3.0)]
    assert union([p.bounds() for p in pieces]) == ((-3.0, -3.0, -2.0), (7.0, 3.0, 12.0))


def test_region_is_what_its_function_says() -> None:
    region = Region(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), lambda x, y, z: x - y + z)
    one = np.ones(1, np.float32)
    assert region.depth(3 * one, one, one) == 3
