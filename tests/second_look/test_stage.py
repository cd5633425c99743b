"""The stage, from coarse frames to crops, and a warm-up that reads them."""

from pathlib import Path

import numpy as np
import pytest

from ctscribe.errors import CtscribeError
from ctscribe.files import read_json
from ctscribe.model.checkpoint import load_model, save_model
from ctscribe.model.features import frames_of
from ctscribe.prepare import prepare
from ctscribe.rows import StudyRow, read_rows
from ctscribe.second_look.stage import second_look
from ctscribe.slices.cache import fine_path, read_fine, read_frames, record_path
from ctscribe.warm_up.stage import warm_up
from tests.second_look.recipe import RECIPE


def test_crops_show_the_same_slices_at_full_resolution(data: Path, looked: Path) -> None:
    studies = read_rows(looked / "studies.jsonl", StudyRow)
    assert len(studies) >= 8
    for study in studies:
        first = read_frames(data / "prepared", study.volume_name)
        fine = read_fine(data / "prepared", study.volume_name)
        frames = read_frames(looked, study.volume_name)
        _, height, width, _ = first.shape
        assert height * width // 28**2 * 3 <= 18
        assert fine.shape[1:3] == (84, 112)
        np.testing.assert_array_equal(frames[:6], first)
        assert frames.shape == (10, height, width, 3)
        assert len(study.slice_indices) == len(study.position_mm) == 10
        fine_to_ras = np.array(
            read_json(record_path(data / "prepared", study.volume_name))["fine_to_ras"]
        )
        for pair, matrix in enumerate(study.crop_to_ras, start=3):
            shown = study.slice_indices[2 * pair : 2 * pair + 2]
            z = study.slice_indices.index(shown[0])
            assert study.slice_indices[z : z + 2] == shown
            assert study.position_mm[z : z + 2] == study.position_mm[2 * pair : 2 * pair + 2]
            corner = np.linalg.inv(fine_to_ras) @ np.array(matrix) @ [0, 0, 0, 1]
            left, top = np.rint(corner[:2]).astype(int)
            np.testing.assert_allclose(corner[:2], [left, top], atol=1e-9)
            cut = fine[z : z + 2, top : top + height, left : left + width]
            np.testing.assert_array_equal(frames[2 * pair : 2 * pair + 2], cut)


def test_it_continues_and_refuses_another_request(data: Path, start: Path, looked: Path) -> None:
    rows = read_rows(looked / "studies.jsonl", StudyRow)
    kept, redone = (record_path(looked, row.volume_name) for row in rows[:2])
    stamp, written = kept.stat().st_mtime_ns, redone.read_bytes()
    redone.unlink()
    assert second_look(data / "prepared", looked, start, RECIPE) == rows
    assert kept.stat().st_mtime_ns == stamp
    assert redone.read_bytes() == written
    one = RECIPE.model_copy(update={"slices": RECIPE.slices.model_copy(update={"second_look": 1})})
    with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
        second_look(data / "prepared", looked, start, one)
    with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
        second_look(data / "prepared", data / "prepared", start, RECIPE)


def test_what_it_needs_is_said(data: Path, start: Path, tmp_path: Path) -> None:
    slices = RECIPE.slices.model_copy(update={"second_look": 0})
    prepare(data, tmp_path / "prepared", RECIPE.volume, slices, keep="slices")
    with pytest.raises(CtscribeError, match=r"full resolution.*E_MISSING"):
        second_look(tmp_path / "prepared", tmp_path / "out", start, RECIPE)
    none = RECIPE.model_copy(update={"slices": slices})
    with pytest.raises(CtscribeError, match=r"^slices\.second_look must say.*E_MISSING"):
        second_look(data / "prepared", tmp_path / "out", start, none)


def test_weights_without_queries_are_refused(data: Path, start: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    save_model(bare, *load_model(start))
    with pytest.raises(CtscribeError, match="E_NO_QUERIES"):
        second_look(data / "prepared", tmp_path / "out", bare, RECIPE)
    assert not (tmp_path / "out" / "prepare.json").exists()


def test_damaged_full_frames_are_made_anew(data: Path) -> None:
    studies = read_rows(data / "prepared/studies.jsonl", StudyRow)
    name = studies[0].volume_name
    path = fine_path(data / "prepared", name)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CtscribeError, match="E_CACHE"):
        read_fine(data / "prepared", name)
    again = prepare(data, data / "prepared", RECIPE.volume, RECIPE.slices, keep="slices")
    assert again.num_reused == len(studies) - 1
    assert path.read_bytes() == whole


def test_the_tower_learns_from_crops(data: Path, looked: Path, tmp_path: Path) -> None:
    out = warm_up(tmp_path / "start", RECIPE, looked, data / "truth.jsonl")
    assert read_json(out / "warm_up.json")["losses"][0] > 0
    study = read_rows(looked / "studies.jsonl", StudyRow)[0]
    assert frames_of(looked, study, windows="three").grid_thw[0] == 5
