from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from ctscribe.scan.frames import WINDOWS, air_frames, make_frames, noise_frames
from ctscribe.scan.volume import CTVolume, to_ras
from tests.scans import ORIENTATIONS

AFFINE = np.array([[0.75, 0, 0, -30.0], [0, 0.75, 0, -40.0], [0, 0, 1.5, 900.0], [0, 0, 0, 1.0]])


def empty(shape: tuple[int, int, int]) -> CTVolume:
    return CTVolume(np.full(shape, -1000, dtype=np.int16), AFFINE)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_marked_voxel_is_found_where_it_lies(orientation: str) -> None:
    """Anterior up, the patient's right on the left, however the voxels were stored."""
    volume = empty((30, 40, 8))
    volume.hu[25, 33, 6] = 1000  # right, anterior, cranial
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    stored = CTVolume(
        apply_orientation(volume.hu, change), AFFINE @ inv_ornt_aff(change, volume.hu.shape)
    )
    frames, frame_to_ras = make_frames(to_ras(stored), (7, 6, 1), WINDOWS["single"], (56, 28))
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
