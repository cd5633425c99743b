from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.learn.model.positions import position_ids
from ctscribe.scan.frames import (
    WINDOWS,
    PreparedVolume,
    Window,
    air_frames,
    apply_window,
    coarse_size,
    frames_of_lungs,
    make_frames,
    noise_frames,
)
from ctscribe.scan.volume import CTVolume, to_ras
from tests.scans import ORIENTATIONS, chest, stored_as

AFFINE = np.array([[0.75, 0, 0, -30.0], [0, 0.75, 0, -40.0], [0, 0, 1.5, 900.0], [0, 0, 0, 1.0]])


def empty(shape: tuple[int, int, int]) -> CTVolume:
    return CTVolume(np.full(shape, -1000, dtype=np.int16), AFFINE)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_marked_voxel_is_found_where_it_lies(orientation: str) -> None:
    """Anterior up, the patient's right on the left, however the voxels were stored."""
    volume = empty((30, 40, 8))
    volume.hu[25, 33, 6] = 1000  # right, anterior, cranial
    frames, frame_to_ras = make_frames(
        to_ras(stored_as(volume, orientation)), (7, 6, 1), WINDOWS["single"], (56, 28)
    )
    frame, row, column, _ = (int(i[0]) for i in np.nonzero(frames == 255))
    assert frame == 1
    assert row < 28
    assert column < 14
    mm = frame_to_ras @ [column, row, 6, 1]
    np.testing.assert_allclose(mm[:3], (AFFINE @ [25, 33, 6, 1])[:3])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.one_of(st.none(), st.tuples(*[st.sampled_from([28, 56, 84])] * 2)),
)
def test_every_pixel_shows_the_voxel_its_matrix_says(
    width: int, height: int, size: tuple[int, int] | None
) -> None:
    grid = np.arange(width * height, dtype=np.float32).reshape(width, height, 1)
    hu = -900 + 1800 * grid / (width * height)
    frames, frame_to_ras = make_frames(CTVolume(hu, AFFINE), (0,), WINDOWS["single"], size)
    rows, columns = frames.shape[1:3]
    assert (rows, columns) == (size or (-(-height // 28) * 28, -(-width // 28) * 28))
    to_voxel = np.linalg.inv(AFFINE) @ frame_to_ras
    for row, column in np.ndindex(rows, columns):
        x, y, _, _ = np.rint(to_voxel @ [column, row, 0, 1]).astype(int)
        inside = 0 <= x < width and 0 <= y < height
        expected = np.rint((hu[x, y, 0] + 1000) * np.float32(255 / 2000)) if inside else 0
        assert frames[0, row, column, 0] == expected


def test_cropping_and_padding_are_centred() -> None:
    volume = empty((40, 20, 2))
    volume.hu[:] = 1000
    frames, _ = make_frames(volume, (0,), WINDOWS["single"], (28, 28))
    assert (frames[0, 4:24] == 255).all()
    assert (frames[0, :4] == 0).all()
    assert (frames[0, 24:] == 0).all()


def test_channels_are_windows() -> None:
    volume = empty((28, 28, 2))
    volume.hu[:] = -700
    three, _ = make_frames(volume, (0,), WINDOWS["three"])
    assert three[0, 3, 3].tolist() == [38, 0, 128]
    one, _ = make_frames(volume, (0,), WINDOWS["single"])
    assert one[0, 3, 3].tolist() == [38, 38, 38]


def test_air_is_black_in_every_window() -> None:
    frames, _ = make_frames(empty((28, 28, 2)), (0, 1), WINDOWS["three"], (56, 56))
    assert frames.max() == 0


def test_noise_is_equation_3_of_standard_normal() -> None:
    frames = noise_frames(7, 10, (84, 84), WINDOWS["three"])
    assert frames.shape == (10, 84, 84, 3)
    wide = frames[..., 0].astype(float) / 255 * 2 - 1
    assert abs(wide.mean()) < 0.01
    assert (frames[..., 0] == 255).mean() == pytest.approx(0.1587 + 0.0008, abs=0.005)
    inner = np.abs(wide) < 0.99
    assert wide[inner].std() == pytest.approx(0.533, abs=0.01)
    # the same voxel in each window: white in the narrow ones wherever the wide one is bright
    assert (frames[..., 1][frames[..., 0] > 160] == 255).all()


def test_noise_is_reproducible_and_seeds_differ() -> None:
    first = noise_frames(1, 2, (28, 28), WINDOWS["single"])
    np.testing.assert_array_equal(first, noise_frames(1, 2, (28, 28), WINDOWS["single"]))
    assert (first != noise_frames(2, 2, (28, 28), WINDOWS["single"])).any()
    assert (first[..., 0] == first[..., 2]).all()


@pytest.mark.parametrize("windows", ["single", "three"])
def test_air_looks_as_in_a_volume_of_air(windows: Literal["single", "three"]) -> None:
    volume = CTVolume(np.full((28, 28, 2), -1024, dtype=np.int16), AFFINE)
    frames, _ = make_frames(volume, (1, 0), WINDOWS[windows])
    np.testing.assert_array_equal(air_frames(2, (28, 28), WINDOWS[windows]), frames)


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


@pytest.mark.parametrize("token_budget", [None, 60])
def test_frames_are_whole_tokens_of_any_side(token_budget: int | None) -> None:
    volume = chest((80, 96, 130), (4.0, 3.0, 2.5))
    knobs = {"token_budget": token_budget}
    for side, full in ((28, (308, 336)), (32, (288, 320))):
        slices = SlicesConfig.model_validate({"token_side_px": side, **knobs})
        found = frames_of_lungs(volume, VolumeConfig(spacing_mm=SPACING_MM), slices)
        height, width = found.frames.shape[1:3]
        assert height % side == width % side == 0
        tokens = 5 * (height // side) * (width // side)
        assert tokens <= token_budget if token_budget else (height, width) == full


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
    ids = position_ids(
        Qwen2_5_VLConfig(video_token_id=7, vision_config={"tokens_per_second": 2}),
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


def test_published_windows() -> None:
    edges = [
        (window.center_hu - window.width_hu / 2, window.center_hu + window.width_hu / 2)
        for window in WINDOWS["three"]
    ]
    assert edges == [(-1000, 1000), (-160, 240), (-1000, -400)]
    for window, edge in zip(WINDOWS["three"], edges, strict=True):
        assert apply_window(np.array(edge), window).tolist() == [0, 255]
    assert WINDOWS["single"] == WINDOWS["three"][:1]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_linear_rounded_and_clipped(dtype: type) -> None:
    hu: np.ndarray = np.array([-3000, -1000, -992, -500, 0, 500, 1000, 3000], dtype=dtype)
    grey = apply_window(hu, Window("wide", 0.0, 2000.0))
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 1, 64, 128, 191, 255, 255]
