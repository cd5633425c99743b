"""What a page carries of a volume, and what that costs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctscribe.scan.intensity import AIR_HU, METAL_HU
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from ctscribe.show import packed_volume
from ctscribe.show.packed_volume import pack, unpack

MUCH = 10**9


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20)),
    st.sampled_from([1, 30, 1000]),
    st.integers(0, 9),
)
def test_what_fits_is_kept_to_the_bit(shape: tuple[int, int, int], noise: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hu = np.clip(rng.normal(0, noise, shape), AIR_HU, METAL_HU).round().astype(np.int16)
    packed = pack(CTVolume(hu, np.eye(4)), MUCH)
    assert (packed.step, packed.error_hu, packed.coarser) == (1, 0.0, False)
    np.testing.assert_array_equal(unpack(packed), hu)


def test_the_steepest_edges_are_kept() -> None:
    checked = np.indices((17, 18, 19)).sum(0) % 2
    hu = np.where(checked, METAL_HU, AIR_HU).astype(np.int16)
    np.testing.assert_array_equal(unpack(pack(CTVolume(hu, np.eye(4)), MUCH)), hu)


def test_densities_are_rounded_and_limited() -> None:
    hu = np.array([-3000.0, -0.6, 0.4, 9000.0], dtype=np.float32).reshape(4, 1, 1)
    found = unpack(pack(CTVolume(hu, np.eye(4)), MUCH)).ravel()
    assert found.tolist() == [AIR_HU, -1, 0, METAL_HU]


def test_a_real_scan_fits_its_budget_and_tells_what_that_cost(shared_data: Path) -> None:
    volume, _ = read_volume(shared_data / "ct/lung_dx_a0001_series", study="a")
    cut = CTVolume(volume.hu[:, :, 20:44], volume.affine)
    errors = []
    for budget in (4_000_000, 1_000_000, 300_000):
        packed = pack(cut, budget)
        assert budget / 2 < packed.num_bytes <= budget
        assert packed.shape_xyz == cut.shape_xyz
        difference = unpack(packed).astype(float) - cut.hu
        assert np.sqrt(np.square(difference).mean()) == pytest.approx(packed.error_hu, rel=0.01)
        errors.append(packed.error_hu)
        # what a radiologist measures, the mean of a region, hardly moves
        means = difference.reshape(32, 16, 32, 16, 24).mean((1, 3))
        assert np.sqrt(np.square(means).mean()) < packed.error_hu / 4
    assert errors == sorted(errors)


def test_a_volume_too_large_for_a_browser_is_coarser_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_volume, "MOST_VOXELS", 15_000)
    z = np.arange(30, dtype=np.int16)
    hu = np.broadcast_to(20 * z, (40, 40, 30)).copy()
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[:3, 3] = (-10, 20, 300)
    packed = pack(CTVolume(hu, affine), MUCH)
    assert packed.coarser
    assert packed.shape_xyz == (20, 20, 30)  # the finest axes first
    found = unpack(packed)
    corner = packed.affine @ [0, 0, 7, 1]
    np.testing.assert_allclose(corner[:3], (-9.75, 20.25, 314))
    assert np.all(found[:, :, 7] == 140)
