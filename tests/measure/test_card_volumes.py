"""What each view leaves of a volume, and what it takes away."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctscribe.measure.card_views import KEPT, REMOVED, VIEWS
from ctscribe.measure.card_volumes import VOLUMES
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.stores import nifti_header
from ctscribe.scan.volume import CTVolume
from tests.scans import chest, coarse_chest


def noisy(volume: CTVolume, level_hu: float, seed: int) -> CTVolume:
    noise = np.random.default_rng(seed).normal(0, level_hu, volume.hu.T.shape)
    hu = np.clip(volume.hu.T + noise, AIR_HU, None).astype(np.int16)
    return CTVolume(hu.T, volume.affine)


OWN = noisy(chest((96, 88, 40), (4.0, 4.0, 8.0)), 20, 0)
OTHER = noisy(chest((80, 90, 44), (4.5, 4.0, 7.0)), 40, 1)


def shown(view: str, seed: int = 3) -> CTVolume:
    return VOLUMES[view](OWN, OTHER, seed)


def detail(volume: CTVolume) -> float:
    """The noise of soft tissue, by second differences."""
    both = np.outer((1, -2, 1), (1, -2, 1))[..., None]
    fine = ndimage.convolve(volume.hu.astype(np.float32), both.astype(np.float32))
    return float(np.median(np.abs(fine[volume.hu > -300])))


def likeness(first: CTVolume, second: CTVolume) -> float:
    return float(np.corrcoef(first.hu.ravel(), second.hu.ravel())[0, 1])


def test_every_view_has_its_volume_and_all_but_two_keep_the_grid() -> None:
    assert [*VOLUMES] == [*VIEWS]
    for view in VIEWS:
        volume = shown(view)
        assert volume.hu.dtype == np.int16
        mine = view not in ("other_patient", KEPT)
        grid = OWN if mine else OTHER
        assert volume.shape_xyz == grid.shape_xyz, view
        assert np.array_equal(volume.affine, grid.affine), view
        again = shown(view)
        assert np.array_equal(volume.hu, again.hu), view


def test_moved_voxels_keep_the_histogram_and_nothing_else() -> None:
    moved = shown("moved")
    assert np.array_equal(np.sort(moved.hu, axis=None), np.sort(OWN.hu, axis=None))
    assert abs(likeness(moved, OWN)) < 0.02
    assert not np.array_equal(moved.hu, shown("moved", seed=4).hu)


@pytest.mark.parametrize("level_hu", [10, 40])
def test_texture_keeps_the_noise_and_none_of_the_anatomy(level_hu: float) -> None:
    clean = chest((96, 88, 40), (4.0, 4.0, 8.0))
    own = noisy(clean, level_hu, 0)
    kept = VOLUMES["texture"](own, OTHER, 3)
    assert detail(kept) == pytest.approx(detail(own), rel=0.25)
    # a lesion leaves nothing, not even its outline
    ill = clean.hu.copy(order="F")
    ill[20:32, 40:52, 15:25] = 40
    sick = VOLUMES["texture"](noisy(CTVolume(ill, clean.affine), level_hu, 0), OTHER, 3)
    away = np.abs(sick.hu.astype(int) - kept.hu)
    there = away[18:34, 38:54, 15:25].mean()
    assert there < 2 * away[60:76, 38:54, 15:25].mean() + 2


def test_what_lies_outside_the_field_of_view_stays_there() -> None:
    hu = OWN.hu.copy(order="F")
    hu[:6] = AIR_HU
    kept = VOLUMES["texture"](CTVolume(hu, OWN.affine), OTHER, 0)
    assert (kept.hu[:6] == AIR_HU).all()
    assert not (kept.hu[6:] == AIR_HU).all(axis=2).any()


def test_another_patient_on_the_own_grid_has_nothing_of_its_header() -> None:
    volume = shown("other_on_own_grid")
    header = nifti_header(volume.shape_xyz, volume.affine)
    assert header == nifti_header(OWN.shape_xyz, OWN.affine)
    # from edge to edge: each lung lies at the same share of the width
    profiles = [(each.hu < -500).mean(axis=(1, 2)) for each in (volume, OTHER)]
    at = [np.interp(np.linspace(0, 1, 50), np.linspace(0, 1, len(p)), p) for p in profiles]
    assert np.abs(at[0] - at[1]).max() < 0.06


def test_the_scan_on_another_grid_is_still_the_scan() -> None:
    volume = shown(KEPT)
    back = VOLUMES["other_on_own_grid"](OWN, volume, 0)
    smooth = [ndimage.uniform_filter(v.hu.astype(np.float32), 3) for v in (back, OWN)]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.98


@given(st.tuples(*[st.sampled_from([24, 40])] * 3), st.integers(0, 2**31))
def test_no_voxel_grid_is_its_own_other(shape: tuple[int, int, int], seed: int) -> None:
    own = noisy(chest((24, 40, 24), (10.0, 8.0, 12.0)), 20, seed)
    other = CTVolume(np.zeros(shape, np.int16, order="F"), np.diag([9.0, 9.0, 11.0, 1.0]))
    volume = VOLUMES[KEPT](own, other, seed)
    assert all(mine != new for mine, new in zip(own.shape_xyz, volume.shape_xyz, strict=True))
    extent = [n * mm for n, mm in zip(volume.shape_xyz, volume.spacing_mm, strict=True)]
    assert extent == pytest.approx([n * mm for n, mm in zip(shape, (9.0, 9.0, 11.0), strict=True)])


def test_an_empty_volume_has_every_view() -> None:
    empty = CTVolume(np.full((32, 32, 24), AIR_HU, np.int16, order="F"), coarse_chest().affine)
    for view in REMOVED:
        assert VOLUMES[view](empty, empty, 0).shape_xyz == (32, 32, 24)
    assert (VOLUMES["texture"](empty, empty, 0).hu == AIR_HU).all()


def test_headers_are_read_back_as_written() -> None:
    volume = shown(KEPT)
    header = nib.Nifti1Header(nifti_header(volume.shape_xyz, volume.affine)[:348], check=False)
    assert np.allclose(header.get_best_affine(), volume.affine, atol=1e-4)
