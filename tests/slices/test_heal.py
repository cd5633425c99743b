import numpy as np
import pytest
from scipy import ndimage

from ctscribe.slices.heal import RIM_PX, heal_frames, lung_around
from ctscribe.types import Frames

SIDE = 112


def lungs(seed: int, noise: float = 8.0) -> Frames:
    """A body with two lungs: a gradient, a few vessels and correlated noise, as scanners give."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 130.0)
    for centre in (33, 79):
        lung = ((x - centre) / 19) ** 2 + ((y - 56) / 34) ** 2 < 1
        image[lung] = 14 + 0.12 * y[lung]
        for _ in range(14):
            row, column = rng.uniform(26, 86), rng.uniform(centre - 15, centre + 15)
            image[(np.hypot(y - row, x - column) < rng.uniform(0.6, 1.6)) & lung] = 90
    grain = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7)
    grey = image + noise * grain / grain.std()
    return np.asarray(
        np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[None, ..., None], 3, axis=3)
    )


def disc(row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.asarray((np.hypot(y - row, x - column) <= radius)[None])


NOTHING = np.zeros((1, SIDE, SIDE), bool)


def with_lesion(frames: Frames, where: np.ndarray) -> Frames:
    ill = frames.copy()
    ill[where] = np.clip(ill[where].astype(int) + 110, 0, 255)
    return ill


def test_only_the_lesion_changes_and_the_same_again() -> None:
    lesion = disc(52, 34, 6)
    ill = with_lesion(lungs(0), lesion)
    healed = heal_frames(ill, lesion, NOTHING)
    assert np.array_equal(healed[~lesion], ill[~lesion])
    assert np.array_equal(healed, heal_frames(ill, lesion, NOTHING))
    assert np.array_equal(ill, with_lesion(lungs(0), lesion))


def _high_pass(frame: np.ndarray) -> np.ndarray:
    grey = frame[..., 0].astype(float)
    return np.asarray(np.abs(grey - ndimage.median_filter(grey, 3)))


def test_density_grain_and_rim_are_those_of_untouched_lung() -> None:
    """Over twelve places: mean, noise inside, and steps across the rim, healed against before."""
    density, grain, steps = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        lesion = disc(rng.uniform(46, 66), rng.choice([33, 79]) + rng.uniform(-4, 4), 6)
        well = lungs(seed)
        healed = heal_frames(with_lesion(well, lesion), lesion, NOTHING)[0]
        inside, before = lesion[0], well[0]
        rim = ndimage.binary_dilation(inside) ^ ndimage.binary_erosion(inside)
        density.append([np.median(f[inside]) for f in (healed, before)])
        grain.append([np.median(_high_pass(f)[inside]) for f in (healed, before)])
        edges = [np.hypot(*np.gradient(f[..., 0].astype(float))) for f in (healed, before)]
        steps.append([np.median(edge[rim]) for edge in edges])
    for measured, tolerance in ((density, 0.12), (grain, 0.2), (steps, 0.12)):
        healed_mean, before_mean = np.mean(measured, axis=0)
        assert healed_mean == pytest.approx(before_mean, rel=tolerance)


def test_a_flat_fill_would_be_caught_by_these_measures() -> None:
    well = lungs(3)
    lesion = disc(56, 33, 6)
    flat = well.copy()
    flat[lesion] = int(np.median(well[lesion]))
    assert np.mean(_high_pass(flat[0])[lesion[0]]) < 0.5 * np.mean(_high_pass(well[0])[lesion[0]])


def test_no_tissue_is_taken_from_what_is_avoided() -> None:
    lesion, other = disc(52, 34, 5), disc(75, 34, 5)
    marked = with_lesion(lungs(1, noise=0), lesion)
    marked[other] = 255
    # Everything but one clean patch of the other lung is avoided, so that it must be the source.
    allowed = disc(58, 79, 6 + RIM_PX)
    healed = heal_frames(marked, lesion, ~allowed & ~lesion)
    assert healed[lesion].max() < 200
    assert np.array_equal(healed[other], marked[other])


def test_lesions_at_the_border_of_a_frame_are_healed() -> None:
    frames = np.full((2, 56, 56, 3), 20, np.uint8)
    lesion = np.zeros((2, 56, 56), bool)
    lesion[1, :6, 50:] = True
    frames[lesion] = 200
    healed = heal_frames(frames, lesion, np.zeros_like(lesion))
    assert np.abs(healed.astype(int) - 20).max() <= 1


def test_lung_around_is_the_share_of_dark_pixels_next_to_a_lesion() -> None:
    frames = np.full((3, 56, 56, 3), 130, np.uint8)
    frames[:, :, :28] = 20
    lesion = np.zeros((3, 56, 56), bool)
    lesion[0, 20:24, 10:14] = lesion[1, 20:24, 40:44] = True
    assert lung_around(frames, lesion).tolist() == [1.0, 0.0]
