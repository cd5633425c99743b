from collections.abc import Callable
from pathlib import Path

from ctscribe.data.prepared import write_frames
from ctscribe.measure.calibrate import abstention_rates
from ctscribe.scan.frames import WINDOWS, make_frames
from ctscribe.scan.lungs import find_lungs, spread_slices
from ctscribe.scan.volume import CTVolume
from tests.studies import study_of


def test_a_good_study_is_kept_and_what_is_none_is_refused(
    tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    volume = make_chest()
    lungs = find_lungs(volume)
    indices = spread_slices((lungs.first, lungs.last), 2, volume.shape_xyz[2])
    chest, _ = make_frames(volume, indices, WINDOWS["three"], (56, 84))
    study = study_of("train_1_a", indices)
    write_frames(tmp_path, study.volume_name, chest, {})
    rates = abstention_rates(tmp_path, [study], "three")
    assert {kind: rate["refused"] for kind, rate in rates.items()} == {
        "good studies": 0,
        "noise": 1,
        "blank": 1,
        "shuffled pixels": 1,
    }
