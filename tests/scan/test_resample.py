import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.volume import CTVolume
from tests.scans import resample

sizes = st.tuples(*[st.integers(2, 14)] * 3)
spacings = st.tuples(*[st.floats(0.4, 3.0)] * 3)


def volume(shape: tuple[int, ...], spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> CTVolume:
    hu = np.random.default_rng(0).integers(-1024, 3000, shape[::-1], dtype=np.int16).T
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-100.0, 50.0, 7.0)
    return CTVolume(hu, affine)


def by_torch(source: CTVolume, shape: tuple[int, ...]) -> np.ndarray:
    zyx = torch.from_numpy(np.ascontiguousarray(source.hu.T)).double()[None, None]
    out = torch.nn.functional.interpolate(
        zyx, size=shape[::-1], mode="trilinear", align_corners=False
    )
    return out[0, 0].numpy().T


@settings(max_examples=60, deadline=None)
@given(sizes, spacings, spacings)
def test_equal_to_torch(
    shape: tuple[int, int, int],
    current: tuple[float, float, float],
    target: tuple[float, float, float],
) -> None:
    source = volume(shape, current)
    found = resample(source, target)
    expected = by_torch(source, found.shape_xyz)
    assert np.abs(found.hu - expected).max() < 0.01


def test_shape_is_the_floor_as_in_ct_clip() -> None:
    source = volume((512, 512, 30), (0.6, 0.6, 1.0))
    assert plan_resampling(source, (0.75, 0.75, 1.5)).shape_xyz == (409, 409, 20)
    assert plan_resampling(source, (0.6, 0.6, 50.0)).shape_xyz == (512, 512, 1)


def test_float32_spacing_loses_no_slice() -> None:
    source = volume((8, 8, 100), (0.7, 0.7, float(np.float32(0.7))))
    np.testing.assert_array_equal(resample(source, (0.7, 0.7, 0.7)).hu, source.hu)


@settings(max_examples=30, deadline=None)
@given(sizes, spacings)
def test_grid_covers_the_same_extent(
    shape: tuple[int, int, int], target: tuple[float, float, float]
) -> None:
    source = volume(shape, (1.5, 0.7, 2.5))
    found = plan_resampling(source, target)
    for corner in ((-0.5, -0.5, -0.5), None):
        old = np.array([*(corner or [n - 0.5 for n in source.shape_xyz]), 1.0])
        new = np.array([*(corner or [n - 0.5 for n in found.shape_xyz]), 1.0])
        np.testing.assert_allclose(found.affine @ new, source.affine @ old, atol=1e-9)


def test_a_linear_ramp_keeps_its_place() -> None:
    source = volume((20, 20, 20), (1.0, 1.2, 2.0))
    grid = np.stack(np.meshgrid(*[np.arange(20.0)] * 3, indexing="ij"), axis=-1)
    position = grid @ source.affine[:3, :3].T + source.affine[:3, 3]
    ramp = CTVolume((position @ [1.0, 2.0, 3.0]).astype(np.float32), source.affine)
    found = resample(ramp, (0.75, 0.8, 3.1))
    x, y, z = (np.arange(1.0, n - 1) for n in found.shape_xyz)
    inner = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    expected = (inner @ found.affine[:3, :3].T + found.affine[:3, 3]) @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found.hu[1:-1, 1:-1, 1:-1], expected, atol=2e-4)


def test_single_slices_equal_the_whole() -> None:
    source = volume((16, 18, 30))
    for target in ((0.7, 0.7, 1.7), (1.4, 1.4, 0.6)):
        planned = plan_resampling(source, target)
        whole = resample(source, target).hu
        np.testing.assert_array_equal(planned.stack((7, 3)), whole[:, :, [7, 3]])


@pytest.mark.parametrize("target", [(0.8, 0.9, 1.3), (1.4, 1.0, 0.6)])
@pytest.mark.parametrize("step_z", [-1, 1])
def test_flipped_views_are_read_alike(target: tuple[float, float, float], step_z: int) -> None:
    source = volume((9, 8, 7))
    flipped = CTVolume(source.hu[::-1, ::-1, ::step_z], source.affine)
    copied = CTVolume(np.asfortranarray(flipped.hu), source.affine)
    for antialias in (False, True):
        np.testing.assert_array_equal(
            resample(flipped, target, antialias=antialias).hu,
            resample(copied, target, antialias=antialias).hu,
        )


def test_the_source_is_never_written() -> None:
    source = volume((9, 8, 7))
    kept = CTVolume(source.hu.astype(np.float32), source.affine)
    for target in ((1.0, 1.0, 0.7), (1.0, 1.0, 1.3), (0.7, 1.3, 1.0)):
        for plane in plan_resampling(kept, target).slices(range(5)):
            plane[...] = 5000
        np.testing.assert_array_equal(kept.hu, source.hu)


def test_antialias_equals_torch_in_the_plane() -> None:
    source = volume((40, 36, 6))
    found = resample(source, (2.3, 1.7, 1.0), antialias=True)
    planes = torch.from_numpy(np.ascontiguousarray(source.hu.T)).double()[:, None]
    size = found.shape_xyz[1::-1]
    expected = torch.nn.functional.interpolate(
        planes, size=size, mode="bilinear", align_corners=False, antialias=True
    )
    assert np.abs(found.hu.T - expected[:, 0].numpy()).max() < 0.01


def test_plain_sampling_misses_a_thin_plane_and_antialias_does_not() -> None:
    hu = np.full((4, 4, 30), -1000, dtype=np.int16)
    hu[:, :, 14] = 1000
    source = CTVolume(hu, np.eye(4))
    assert resample(source, (1.0, 1.0, 5.0)).hu.max() == -1000
    assert resample(source, (1.0, 1.0, 5.0), antialias=True).hu.max() > -900
