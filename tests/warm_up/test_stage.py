import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.model.checkpoint import load_model
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.prompt import encode_prompt
from ctscribe.warm_up.stage import warm_up

RECIPE = Recipe.model_validate(
    {
        "phantom": {"spacing_mm": [5.0, 5.0, 8.0], "matrix_px": 72, "seed": 5},
        "volume": {"spacing_mm": [5.0, 5.0, 5.0]},
        "slices": {"num_slices": 4, "windows": "three", "frame_size_px": [56, 84]},
        "model": {"preset": "tiny", "dtype": "float32", "positions": "depth"},
        "warm_up": {"num_patients": 6, "epochs": 1, "batch_size": 4, "seed": 9},
    }
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm_up(tmp_path_factory.mktemp("warm") / "start", RECIPE)


def test_it_ends_in_a_checkpoint_with_its_head_and_its_report(start: Path) -> None:
    qwen, tokenizer = load_model(start)
    assert len(encode_prompt(tokenizer, (2, 4, 6))) > 12
    report = json.loads((start / "warm_up.json").read_text())
    assert set(report["auroc"]) == set(FINDINGS)
    assert report["num_train"] >= 6
    assert report["num_held_out"] >= 1
    head = load_file(start / "findings_head.safetensors")
    assert head["cells.weight"].shape == (16 * 18, qwen.config.text_config.hidden_size)
    assert sorted(path.name for path in start.parent.iterdir()) == ["start"]


def test_the_same_request_returns_at_once_and_another_is_refused(start: Path) -> None:
    stamps = {path.name: path.stat().st_mtime_ns for path in start.iterdir()}
    told: list[tuple[int, int]] = []
    other_data = RECIPE.model_copy(
        update={"phantom": RECIPE.phantom.model_copy(update={"num_train_patients": 3, "seed": 6})}
    )
    assert warm_up(start, other_data, progress=lambda *done: told.append(done)) == start
    assert told == [(1000, 1000)]
    assert stamps == {path.name: path.stat().st_mtime_ns for path in start.iterdir()}
    longer = RECIPE.model_copy(update={"warm_up": RECIPE.warm_up.model_copy(update={"epochs": 2})})
    with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
        warm_up(start, longer)


def test_patients_of_the_data_set_are_refused(tmp_path: Path) -> None:
    same = RECIPE.model_copy(
        update={"phantom": RECIPE.phantom.model_copy(update={"seed": RECIPE.warm_up.seed})}
    )
    with pytest.raises(CtscribeError, match="E_SEED"):
        warm_up(tmp_path / "start", same)
