"""Five phantoms from coarse frames to crops, and all that reads them."""

from pathlib import Path

import numpy as np
import pytest

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.evidence.stage import check_faithfulness, find_evidence
from ctscribe.export.patient import report_patient
from ctscribe.files import read_json
from ctscribe.generate import generate
from ctscribe.model.checkpoint import load_model, save_model
from ctscribe.model.features import frames_of
from ctscribe.pairs.build import build_training_pairs
from ctscribe.phantom.dataset import write_dataset
from ctscribe.prepare import prepare
from ctscribe.rows import StudyRow, read_rows
from ctscribe.second_look.stage import second_look
from ctscribe.slices.cache import fine_path, read_fine, read_frames, record_path
from ctscribe.train.stage import train
from ctscribe.warm_up.stage import warm_up

RECIPE = Recipe.model_validate(
    {
        "phantom": {"num_train_patients": 8, "num_valid_patients": 0, "second_reconstruction": 0},
        "volume": {"spacing_mm": [4.0, 4.0, 5.0]},
        "slices": {
            "num_slices": 6,
            "windows": "three",
            "frame_size_px": [84, 112],
            "token_budget": 18,
            "second_look": 2,
        },
        "pairs": {"validation_fraction": 0.45},
        "model": {
            "preset": "tiny",
            "dtype": "float32",
            "positions": "depth",
            "slice_attention": True,
        },
        "train": {"epochs": 1, "gradient_accumulation_steps": 2, "checkpoints_per_epoch": 1},
        "generate": {"max_new_tokens": 24},
        "warm_up": {"num_patients": 6, "epochs": 1, "batch_size": 4, "seed": 9},
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, RECIPE.phantom)
    prepare(folder, folder / "prepared", RECIPE.volume, RECIPE.slices, keep="slices")
    return folder


@pytest.fixture(scope="module")
def start(data: Path) -> Path:
    return warm_up(data / "start", RECIPE, data / "prepared", data / "truth.jsonl")


@pytest.fixture(scope="module")
def looked(data: Path, start: Path) -> Path:
    second_look(data / "prepared", data / "looked", start, RECIPE)
    return data / "looked"


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


def test_a_model_is_trained_writes_and_is_explained_on_crops(
    data: Path, start: Path, looked: Path, tmp_path: Path
) -> None:
    rows = build_training_pairs(looked, tmp_path, RECIPE.pairs)
    assert rows
    run, pairs = tmp_path / "run", tmp_path / "pairs.jsonl"
    train(run, looked, pairs, RECIPE, start)
    wrote = generate(run, looked, RECIPE, "validation", run / "predictions_validation.jsonl")
    assert wrote
    found = find_evidence(
        run, looked, run / "predictions_validation.jsonl", RECIPE, run / "evidence.jsonl"
    )
    studies = {row.volume_name: row for row in read_rows(looked / "studies.jsonl", StudyRow)}
    for row in found:
        depths = studies[row.volume_name].slice_indices
        for sentence in row.sentences:
            assert sorted(each.pair for each in sentence.pairs) == list(range(5))
            for each in sentence.pairs:
                assert each.slice_indices == depths[2 * each.pair : 2 * each.pair + 2]
    check_faithfulness(
        run, looked, run / "predictions_validation.jsonl", data / "truth.jsonl", RECIPE
    )
    again = second_look(data / "prepared", tmp_path / "looked", run / "best", RECIPE)
    assert len(again) == len(studies)
    with pytest.raises(CtscribeError, match="E_PAIRS"):
        generate(run, data / "prepared", RECIPE, "validation", tmp_path / "predictions.jsonl")
    with pytest.raises(CtscribeError, match="E_PAIRS"):
        train(tmp_path / "other", data / "prepared", pairs, RECIPE, start)
    with pytest.raises(CtscribeError, match=r"without a second look.*E_RUN"):
        report_patient(data / "truth.jsonl", run, tmp_path / "report")


def test_the_tower_learns_from_crops(data: Path, looked: Path, tmp_path: Path) -> None:
    out = warm_up(tmp_path / "start", RECIPE, looked, data / "truth.jsonl")
    assert read_json(out / "warm_up.json")["losses"][0] > 0
    study = read_rows(looked / "studies.jsonl", StudyRow)[0]
    assert frames_of(looked, study, windows="three").grid_thw[0] == 5
