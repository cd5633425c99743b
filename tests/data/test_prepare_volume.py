from pathlib import Path

import numpy as np

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare_volume import prepare_volume


def test_one_dicom_series(shared_data: Path) -> None:
    prepared = prepare_volume(
        shared_data / "ct/lung_dx_a0001_series",
        VolumeConfig(),
        SlicesConfig(windows="three"),
        study="lung_dx_a0001",
    )
    assert prepared.frames.shape == (10, 588, 588, 3)
    assert prepared.warnings == ()
    assert list(prepared.position_mm) == sorted(prepared.position_mm, reverse=True)
    assert prepared.resampling.shape_xyz == (574, 574, 213)
    shown = prepared.shown.hu[::-1, ::-1, 3].T
    on_the_grid = prepared.resampling.stack((prepared.slice_indices[3],))[::-1, ::-1, 0].T
    np.testing.assert_array_equal(shown, on_the_grid)
    wide = np.rint((np.clip(shown, -1000, 1000) + 1000) * 255 / 2000)
    assert np.abs(prepared.frames[3, 7:581, 7:581, 0] - wide).max() <= 1
    heart = prepared.frames[7, :, :, 0].astype(float)
    assert heart[200:380, 320:420].mean() > heart[200:380, 150:250].mean() + 30


def test_abdomen_is_warned_about(shared_data: Path) -> None:
    prepared = prepare_volume(
        shared_data / "ct/abdomen_3mm.nii.gz", VolumeConfig(), SlicesConfig(), study="abdomen"
    )
    assert "W_NOT_CHEST" in prepared.warnings
