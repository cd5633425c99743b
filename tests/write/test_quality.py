from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume
from ctscribe.scan.frames import WINDOWS, air_frames, make_frames, noise_frames
from ctscribe.scan.types import Frames
from ctscribe.scan.volume import CTVolume
from ctscribe.write.draft import why_not_assessable

THREE = WINDOWS["three"]


@pytest.fixture
def chest(make_chest: Callable[..., CTVolume]) -> Frames:
    frames, _ = make_frames(make_chest(), (25, 20, 15, 10), THREE)
    return frames


def test_a_chest_is_assessable(chest: Frames) -> None:
    assert why_not_assessable(chest, ("W_SPACING",)) is None
    draw = np.random.default_rng(0)  # a noisy one, too
    noisy = np.clip(chest + draw.normal(0, 12, chest.shape), 0, 255).astype(np.uint8)
    assert why_not_assessable(noisy, ()) is None


def test_what_is_no_chest_is_not(chest: Frames) -> None:
    assert why_not_assessable(chest, ("W_NOT_CHEST",)) == (
        "no lungs were found, so this is no chest CT or not a whole one"
    )
    assert why_not_assessable(air_frames(4, (56, 84), THREE), ()) == "the slices are blank"
    for windows in WINDOWS.values():
        noise = noise_frames(3, 4, (56, 84), windows)
        assert why_not_assessable(noise, ()) == "the slices hold noise and no anatomy"
    order = np.random.default_rng(0).permutation(chest.shape[1] * chest.shape[2])
    shuffled = chest.reshape(4, -1, 3)[:, order].reshape(chest.shape)
    assert why_not_assessable(shuffled, ()) is not None


@pytest.mark.parametrize(
    ("name", "assessable"),
    [
        ("lung_dx_a0001_series", True),
        ("Lung_Dx-A0001_L_3mm.nii.gz", True),
        ("abdomen_3mm.nii.gz", False),
    ],
)
def test_real_scans(shared_data: Path, name: str, assessable: bool) -> None:
    volume = VolumeConfig(spacing_mm=(2.8, 2.8, 5.0))
    slices = SlicesConfig(frame_size_px=(112, 112))
    prepared = prepare_volume(shared_data / "ct" / name, volume, slices, study="a")
    assert (why_not_assessable(prepared.frames, prepared.warnings) is None) == assessable
