from collections.abc import Callable
from pathlib import Path

from ctscribe.base.recipe import Recipe, SlicesConfig
from ctscribe.measure.calibrate import abstention_rates
from ctscribe.scan.frames import WINDOWS, make_frames
from ctscribe.scan.lungs import find_lungs, spread_slices
from ctscribe.scan.volume import CTVolume
from tests.studies import study_row, write_prepared


def test_a_good_study_is_kept_and_what_is_none_is_refused(
    tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    volume = make_chest()
    lungs = find_lungs(volume)
    indices = spread_slices((lungs.first, lungs.last), 2, volume.shape_xyz[2])
    chest, _ = make_frames(volume, indices, WINDOWS["three"], (56, 84))
    study = study_row("train_1_a_1.nii.gz", slice_indices=indices)
    slices = SlicesConfig(num_slices=2, windows="three", frame_size_px=(56, 84))
    write_prepared(tmp_path, [study], Recipe(slices=slices), frames=[chest])
    rates = abstention_rates(tmp_path, [study], "three")
    assert {kind: rate["refused"] for kind, rate in rates.items()} == {
        "good studies": 0,
        "noise": 1,
        "blank": 1,
        "shuffled pixels": 1,
    }
