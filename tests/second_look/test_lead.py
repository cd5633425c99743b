from pathlib import Path

import numpy as np

from ctscribe.rows import StudyRow, read_rows
from ctscribe.second_look.cut import first_look
from ctscribe.second_look.lead import load_leader, look_again
from ctscribe.slices.cache import read_frames
from ctscribe.slices.one import prepare_volume
from tests.second_look.recipe import RECIPE


def test_in_memory_every_scan_is_shown_as_the_stages_show_it(
    data: Path, start: Path, looked: Path
) -> None:
    leader = load_leader(start, RECIPE.model.dtype)
    studies = read_rows(looked / "studies.jsonl", StudyRow)
    assert len(studies) >= 8
    for study in studies:
        (scan,) = data.glob(f"dataset/**/{study.volume_name}")
        knobs = RECIPE.volume.model_dump() | RECIPE.slices.model_dump()
        prepared = prepare_volume(scan, study=study.volume_name, **knobs)
        assert prepared.fine is not None
        shown = look_again(leader, first_look(prepared), prepared.fine, 2)
        np.testing.assert_array_equal(shown.frames, read_frames(looked, study.volume_name))
        assert shown.slice_indices == study.slice_indices
        assert shown.position_mm == study.position_mm
        np.testing.assert_array_equal(shown.crop_to_ras, study.crop_to_ras)
