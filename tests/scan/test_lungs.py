from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.lungs import Lungs, find_lungs, spread_slices
from ctscribe.scan.read import read_volume
from ctscribe.scan.volume import CTVolume
from tests import scans


@pytest.fixture
def chest() -> CTVolume:
    """Lungs of 0.8 of the height: |z| < 0.8 of 20 half-slices."""
    return scans.chest((80, 70, 40), (4.5, 4.5, 8.0))


def test_extent_of_known_lungs(chest: CTVolume) -> None:
    lungs = find_lungs(chest)
    assert lungs.first in (4, 5)
    assert lungs.last in (34, 35)


def test_table_padding_and_bowel_gas_do_not_count(chest: CTVolume) -> None:
    clean = find_lungs(chest)
    hu = chest.hu
    hu[10:70, 3:5, :] = 100  # table behind the patient
    hu[:6] = -1024  # outside the field of view
    hu[30:50, 40:50, 0:3] = -1000  # bowel gas below the lungs
    assert find_lungs(chest) == clean


def test_trachea_above_the_apices_does_not_count(chest: CTVolume) -> None:
    clean = find_lungs(chest)
    chest.hu[38:42, 33:37, 20:] = -1000
    assert find_lungs(chest) == clean


def test_extent_is_the_same_in_any_resolution(chest: CTVolume) -> None:
    coarse, fine = find_lungs(chest), find_lungs(scans.resample(chest, (1.5, 1.5, 2.0)))
    fine_mm, coarse_mm = (
        (fine.first * 2.0, fine.last * 2.0),
        (coarse.first * 8.0, coarse.last * 8.0),
    )
    np.testing.assert_allclose(fine_mm, coarse_mm, atol=8.0)


def test_no_lungs_gives_the_whole_volume(chest: CTVolume) -> None:
    solid = CTVolume(np.full_like(chest.hu, 40), chest.affine)
    assert find_lungs(solid) == Lungs(0, 39, found=False)
    assert spread_slices((0, 39), 4, 40) == (35, 25, 15, 5)


def test_real_chest(shared_data: Path) -> None:
    volume, _ = read_volume(shared_data / "ct/lung_dx_a0001_series", study="lung_dx_a0001")
    lungs = find_lungs(volume)
    assert lungs.found
    assert 3 <= lungs.first <= 7
    assert 52 <= lungs.last <= 57


def test_abdomen_is_no_chest(shared_data: Path) -> None:
    volume, _ = read_volume(shared_data / "ct/abdomen_3mm.nii.gz", study="abdomen")
    assert not find_lungs(volume).found
    assert not find_lungs(scans.resample(volume, (0.75, 0.75, 1.5))).found


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([2, 4, 10, 16]), st.integers(0, 40))
def test_slices_are_distinct_ordered_and_centred(
    first: int, length: int, num_slices: int, above: int
) -> None:
    last = first + length
    depth = last + 1 + above
    if depth < num_slices:
        with pytest.raises(CtscribeError, match=f"at least the {num_slices} slices"):
            spread_slices((first, last), num_slices, depth)
        return
    chosen = spread_slices((first, last), num_slices, depth)
    assert len(set(chosen)) == num_slices
    assert list(chosen) == sorted(chosen, reverse=True)
    assert min(chosen) >= 0
    assert max(chosen) < depth
    if length + 1 >= num_slices:
        assert first <= min(chosen)
        assert max(chosen) <= last
        steps = -np.diff(chosen)
        assert steps.max() - steps.min() <= 1
        assert abs((min(chosen) - first) - (last - max(chosen))) <= 1


def test_too_short_an_extent_is_widened() -> None:
    assert spread_slices((10, 11), 6, 40) == (13, 12, 11, 10, 9, 8)
    assert spread_slices((0, 0), 4, 5) == (3, 2, 1, 0)
    assert spread_slices((39, 39), 4, 40) == (39, 38, 37, 36)
