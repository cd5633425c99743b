"""The warm-up on phantoms and on prepared studies, and the share of places that it is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.data.lesions import Place
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.teach import Lesson
from ctscribe.learn.warm_up import keep_share, warm_up
from ctscribe.phantom.dataset import write_dataset
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import encode_prompt
from tests.studies import write_prepared

RECIPE = Recipe.model_validate(
    {
        "phantom": {"spacing_mm": [5.0, 5.0, 8.0], "matrix_px": 72, "seed": 5},
        "volume": {"spacing_mm": [5.0, 5.0, 5.0]},
        "slices": {"num_slices": 4, "windows": "three", "frame_size_px": [56, 84]},
        "model": {"preset": "tiny", "dtype": "float32", "positions": "depth"},
        "warm_up": {"num_patients": 6, "epochs": 1, "batch_size": 4, "seed": 9},
        "splits": {"validation_fraction": 0.45},
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


def test_slabs_are_taught_as_thick_as_in_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One set of slices a phantom: a second between would halve the way to the next."""
    tree = RECIPE.model_dump()
    tree["slices"] |= {"projection": "slab", "slab_mm": 30.0}
    tree["warm_up"] |= {"num_patients": 2}
    taught: list[Lesson] = []

    def note(qwen: object, lessons: list[Lesson], config: object, **_: object) -> None:
        taught.extend(lessons)
        raise InterruptedError

    monkeypatch.setattr("ctscribe.learn.warm_up.teach", note)
    with pytest.raises(InterruptedError):
        warm_up(tmp_path / "start", Recipe.model_validate(tree))
    assert len(taught) >= 2
    for lesson in taught:
        assert (lesson.reach[:, 1] - lesson.reach[:, 0]) * 5.0 == pytest.approx(30.0, abs=9)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of eight phantom patients, beside the table of their scans."""
    folder = tmp_path_factory.mktemp("data")
    few = {"num_train_patients": 8, "num_valid_patients": 0, "second_reconstruction": 0.0}
    write_dataset(folder, RECIPE.phantom.model_copy(update=few))
    return folder / "truth.jsonl"


@pytest.fixture(scope="module")
def prepared(truth: Path) -> Prepared:
    """Their slices; half of the patients teach, the others are asked about."""
    folder = truth.parent / "prepared"
    prepare(truth.parent, folder, RECIPE.volume, RECIPE.slices, RECIPE.splits, keep="slices")
    return Prepared(folder)


def own(**changes: object) -> Recipe:
    tree = RECIPE.model_dump()
    tree["warm_up"] |= changes
    return Recipe.model_validate(tree)


def test_prepared_studies_teach_with_the_places_of_some(
    prepared: Prepared, truth: Path, tmp_path: Path
) -> None:
    recipe = own(where_share=0.5, attention_weight=0.1, tower="last_blocks", last_blocks=2)
    out = warm_up(tmp_path / "start", recipe, prepared, truth)
    report = json.loads((out / "warm_up.json").read_text())
    assert report["num_train"] + report["num_held_out"] >= 8
    assert min(report["num_train"], report["num_held_out"]) > 0
    assert "phantom" not in report["request"]
    assert load_model(out)[0].dtype == torch.float32
    assert warm_up(out, recipe, prepared, truth) == out
    for other, where in ((own(where_share=0.25), truth), (recipe, None)):
        with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
            warm_up(out, other, prepared, where)


def test_labels_alone_teach_too(prepared: Prepared, tmp_path: Path) -> None:
    out = warm_up(tmp_path / "start", own(), prepared)
    report = json.loads((out / "warm_up.json").read_text())
    assert report["request"]["where"] is None
    assert report["losses"][0] > 0


def test_prepared_studies_must_be_of_both_splits(prepared: Prepared, tmp_path: Path) -> None:
    lone = write_prepared(tmp_path / "prepared", prepared.studies[:1], own())
    with pytest.raises(CtscribeError, match="E_EMPTY_SPLIT"):
        warm_up(tmp_path / "start", own(), lone)


NAMES = [f"train_{n}_a_1.nii.gz" for n in range(40)]
PLACES = {
    name.removesuffix(".nii.gz"): (Place("Lung nodule", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),)
    for name in NAMES
}


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.05, 2), (0.25, 10), (1.0, 40)])
def test_a_share_keeps_that_many(share: float, kept: int) -> None:
    assert len(keep_share(PLACES, NAMES, share, seed=0)) == kept


def test_shares_are_nested_and_drawn_by_seed() -> None:
    small, large = (keep_share(PLACES, NAMES, share, seed=0) for share in (0.05, 0.25))
    assert small.keys() < large.keys()
    assert keep_share(PLACES, NAMES, 0.25, seed=1).keys() != large.keys()


def test_studies_without_places_stay_without() -> None:
    assert keep_share({}, NAMES, 1.0, seed=0) == {}
