import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.learn.model.positions import position_ids
from ctscribe.scan.frames import PreparedVolume, coarse_size, frames_of_lungs
from ctscribe.scan.volume import CTVolume
from tests.scans import chest

SPACING_MM = (1.0, 1.0, 2.5)


def shown(
    num_slices: int, token_budget: int | None, frame_size_px: tuple[int, int] | None = None
) -> PreparedVolume:
    return frames_of_lungs(
        chest((80, 96, 130), (4.0, 3.0, 2.5)),
        VolumeConfig(spacing_mm=SPACING_MM),
        SlicesConfig(num_slices=num_slices, frame_size_px=frame_size_px, token_budget=token_budget),
    )


@given(st.tuples(*[st.integers(1, 30)] * 2), st.integers(5, 60), st.integers(1, 400), st.booleans())
def test_tokens_keep_to_the_budget_and_the_aspect(
    cells: tuple[int, int], pairs: int, a_pair: int, spare: bool
) -> None:
    full = (28 * cells[0], 28 * cells[1])
    budget = a_pair * pairs + spare * (pairs - 1)
    height, width = coarse_size(full, 2 * pairs, budget)
    rows, columns = height // 28, width // 28
    assert (28 * rows, 28 * columns) == (height, width)
    assert rows * columns * pairs <= budget
    assert height <= full[0]
    assert width <= full[1]
    if cells[0] * cells[1] <= a_pair:
        assert (height, width) == full
    if cells[0] == cells[1]:
        assert rows == columns == min(cells[0], int(a_pair**0.5))


def test_without_a_budget_frames_are_full() -> None:
    assert coarse_size((588, 560), 240, None) == (588, 560)
    full, roomy = shown(10, None), shown(10, 10**6)
    np.testing.assert_array_equal(full.frames, roomy.frames)
    np.testing.assert_array_equal(full.frame_to_ras, roomy.frame_to_ras)


@pytest.mark.parametrize("num_slices", [10, 30, 60, 120])
def test_more_slices_within_the_same_budget(num_slices: int) -> None:
    full, few = shown(num_slices, None), shown(num_slices, 600)
    _, height, width, _ = few.frames.shape
    assert height * width // 28**2 * num_slices // 2 <= 600
    assert few.slice_indices == full.slice_indices
    assert few.position_mm == full.position_mm
    assert few.resampling.shape_xyz == full.resampling.shape_xyz
    assert few.shown.shape_xyz[2] == num_slices


@pytest.mark.parametrize("frame_size_px", [None, (252, 308), (336, 336)])
@pytest.mark.parametrize("token_budget", [None, 300, 60])
def test_millimetres_lie_where_coarse_frames_show_them(
    token_budget: int | None, frame_size_px: tuple[int, int] | None
) -> None:
    volume = chest((80, 96, 130), (4.0, 3.0, 2.5))
    volume.hu[...] = np.where(volume.hu > 0, 0, volume.hu)
    low, high = np.array([45, 60, 0]), np.array([56, 71, 129])
    volume.hu[45:57, 60:72] = 3000
    bone = volume.affine[:3, :3] @ np.array([low - 0.5, high + 0.5]).T
    bone += volume.affine[:3, 3:]
    found = frames_of_lungs(
        volume,
        VolumeConfig(spacing_mm=SPACING_MM),
        SlicesConfig(frame_size_px=frame_size_px, token_budget=token_budget),
    )
    corners = np.linalg.inv(found.frame_to_ras) @ np.vstack([bone, [1.0, 1.0]])
    rows, columns = np.nonzero(found.frames[4, ..., 0] > 250)
    first, last = (np.array([end(columns), end(rows)]) for end in (np.min, np.max))
    seen = np.stack([first - 0.5, last + 0.5], axis=1)
    pixel_mm = np.linalg.norm(found.frame_to_ras[:3, :2], axis=0)
    reach = 1 + np.array([4.0, 3.0]) / 2 / pixel_mm  # interpolation blurs by half a voxel
    assert (np.abs(np.sort(corners[:2], axis=1) - seen) <= reach[:, None]).all()


def test_coarse_frames_show_the_same_field_of_view() -> None:
    full, few = shown(10, None), shown(10, 200)

    def extent(prepared: PreparedVolume) -> np.ndarray:
        _, height, width, _ = prepared.frames.shape
        corners = np.array([[-0.5, -0.5, 0, 1], [width - 0.5, height - 0.5, 0, 1]])
        return np.asarray((corners @ prepared.frame_to_ras.T)[:, :2])

    pixel_mm = np.linalg.norm(few.frame_to_ras[:3, :2], axis=0)
    lost = extent(few) - extent(full)
    assert (lost[0] >= -28 * pixel_mm).all()
    assert (np.sign(lost) * [[1, 1], [-1, -1]] >= 0).all()


def test_depth_places_120_slices() -> None:
    few = shown(120, 600)
    _, height, width, _ = few.frames.shape
    grid = (60, height // 14, width // 14)
    count = grid[0] * grid[1] * grid[2] // 4
    position_mm = torch.tensor(few.position_mm).reshape(1, 60, 2).mean(2)
    config = Qwen2_5_VLConfig(video_token_id=7, vision_config={"tokens_per_second": 2})
    ids = position_ids(
        config,
        torch.full((1, count), 7),
        torch.ones(1, count, dtype=torch.long),
        torch.tensor([grid]),
        position_mm,
        "depth",
    )
    assert len(set(ids[0, 0].tolist())) == 60


def test_a_budget_averages_pixels_but_no_slices() -> None:
    """Slices twice as far apart as the scan's: a density that alternates must not be blurred."""
    source = chest((80, 96, 130), (4.0, 3.0, 2.5))
    hu = np.broadcast_to(np.arange(130) % 4 * 200.0 - 600, source.hu.shape).astype(np.float32)
    full, coarse = (
        frames_of_lungs(
            CTVolume(hu, source.affine),
            VolumeConfig(spacing_mm=(1.0, 1.0, 5.0)),
            SlicesConfig(num_slices=60, token_budget=budget),
        )
        for budget in (None, 300)
    )
    assert coarse.frames.shape[1:] < full.frames.shape[1:]
    first, second = (
        shown.frames[:, shown.frames.shape[1] // 2, shown.frames.shape[2] // 2, 0]
        for shown in (full, coarse)
    )
    np.testing.assert_array_equal(first, second)
