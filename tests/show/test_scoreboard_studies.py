"""Which two reports look alike, and how slices are drawn."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from ctscribe.base.recipe import Recipe, SlicesConfig
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.show.marked_reports import compare_reports
from ctscribe.show.scoreboard import MAX_SIDE_PX, look_alikes, show_study
from tests.studies import study_row, write_prepared

NORMAL = "The lungs are clear and the heart is of normal size."


def study(patient: int, findings: str, scan: str = "a") -> StudyRow:
    shape = {"spacing_mm": (0.75, 0.5, 1.5), "shape_xyz": (56, 56, 40)}
    texts = {"findings": findings, "impression": ""}
    name = f"valid_{patient}_{scan}_1.nii.gz"
    return study_row(name, slice_indices=(35, 25), **shape, **texts)


def prepare(folder: Path, greys: dict[StudyRow, int], side_px: int = 28) -> Prepared:
    shape = (2, side_px, side_px, 3)
    frames = [np.full(shape, grey, dtype=np.uint8) for grey in greys.values()]
    return write_prepared(folder, greys, frames=frames)


def test_equal_reports_win_over_different_images(tmp_path: Path) -> None:
    one, two = study(1, NORMAL), study(2, NORMAL + " No effusion.")
    odd = study(3, "A large mass destroys the left upper lobe.")
    prepared = prepare(tmp_path, {one: 10, odd: 250, two: 20})
    assert look_alikes(prepared.studies, prepared) == (one, two)


def test_of_equally_alike_reports_the_images_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctscribe.show.scoreboard._CANDIDATES", 1.0)
    one, two, three = (study(number, NORMAL) for number in (1, 2, 3))
    prepared = prepare(tmp_path, {one: 100, two: 10, three: 90})
    assert look_alikes(prepared.studies, prepared) == (one, two)


def test_one_patient_and_frames_of_other_sizes_do_not_compare(tmp_path: Path) -> None:
    one, again, two = study(1, NORMAL), study(1, NORMAL, "b"), study(2, NORMAL)
    prepared = prepare(tmp_path, {one: 0, again: 255})
    assert look_alikes([one, again], prepared) is None
    prepare(tmp_path, {two: 9}, side_px=56)
    assert look_alikes([one, two], prepared) is None


@pytest.mark.parametrize(("windows", "titles"), [("single", 1), ("three", 2)])
def test_large_frames_are_drawn_smaller_and_stay_to_scale(
    windows: Literal["single", "three"], titles: int, tmp_path: Path
) -> None:
    frame_to_ras = tuple(map(tuple, np.diag([-0.75, -0.5, 3.0, 1.0]).tolist()))
    row = study(1, NORMAL).model_copy(update={"frame_to_ras": frame_to_ras})
    frames = np.zeros((2, 504, 504, 3), dtype=np.uint8)
    frames[0, 0, 0] = (100, 160, 200)
    recipe = Recipe(slices=SlicesConfig(windows=windows))
    prepared = write_prepared(tmp_path, [row], recipe, frames=[frames])
    compared = compare_reports("x", reference=NORMAL, prediction="", labels=None)
    shown = show_study(compared, row, prepared).slices
    assert shown is not None
    assert len(shown.images) == titles
    first = next(iter(shown.images.values()))
    assert first.shape == (2, 252, 252)
    assert max(first.shape[1:]) <= MAX_SIDE_PX
    assert first[0, 0, 0] == (25 if windows == "single" else 50)
    assert shown.pixel_spacing_mm == (1.5, 1.0)
    if windows == "three":
        assert [title.split()[0] for title in shown.images] == ["lung", "soft"]
