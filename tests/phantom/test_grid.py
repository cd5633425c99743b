import numpy as np
import pytest

from ctscribe.phantom.grid import VoxelGrid


@pytest.fixture
def grid() -> VoxelGrid:
    return VoxelGrid(
        shape_zyx=(40, 64, 80),
        spacing_mm=(2.0, 2.5, 5.0),
        origin_mm=(90.0, 70.0, -300.0),
        roll_rad=0.1,
        shift_mm=(5.0, -8.0, -200.0),
        edge_mm=2.0,
    )


def test_world_and_index_agree_with_the_affine(grid: VoxelGrid) -> None:
    body = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    index_xyz = grid.to_index(body)[:, ::-1]
    world = index_xyz @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    np.testing.assert_allclose(world, grid.to_world(body), atol=1e-9)


def test_pixel_coordinates_are_the_body_positions_of_voxels(grid: VoxelGrid) -> None:
    x, y = grid.plane
    for z, row, column in ((0, 0, 0), (7, 20, 33), (39, 63, 79)):
        point = np.array([[x[0, row, column], y[0, row, column], grid.levels[z]]])
        np.testing.assert_allclose(grid.to_index(point)[0], (z, row, column), atol=1e-4)


def test_axes_run_to_left_posterior_superior(grid: VoxelGrid) -> None:
    assert (np.diag(grid.affine)[:3] == (-2.0, -2.5, 5.0)).all()


def test_window_holds_every_point_of_its_box(grid: VoxelGrid) -> None:
    low, high = (-20.0, -10.0, -60.0), (15.0, 30.0, 40.0)
    window = grid.block(low, high)
    assert window is not None
    index = grid.to_index(np.random.default_rng(1).uniform(low, high, (500, 3)))
    for axis, part in enumerate(window):
        assert index[:, axis].min() >= part.start
        assert index[:, axis].max() <= part.stop - 1


def test_window_outside_the_volume_is_none(grid: VoxelGrid) -> None:
    assert grid.block((0.0, 0.0, 900.0), (5.0, 5.0, 950.0)) is None


def test_slices_of_a_range_are_clipped_to_the_volume(grid: VoxelGrid) -> None:
    first = float(grid.levels[0])
    assert grid.slices(first + 9.0, first + 21.0) == (2, 4)
    assert grid.slices(first - 500.0, first + 5000.0) == (0, 39)


def test_world_box_contains_the_turned_box(grid: VoxelGrid) -> None:
    low, high = (-10.0, -12.0, -20.0), (10.0, 12.0, 20.0)
    lower, upper = grid.world_box(low, high)
    world = grid.to_world(np.random.default_rng(2).uniform(low, high, (300, 3)))
    assert (world.min(axis=0) >= np.asarray(lower) - 0.01).all()
    assert (world.max(axis=0) <= np.asarray(upper) + 0.01).all()
