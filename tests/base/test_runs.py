from dataclasses import dataclass
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import (
    claim,
    is_made_of,
    open_run,
    provenance,
    read_result,
    recipe_of,
    require_same_run,
    start_sha256,
)
from tests.refusals import refusal


def test_the_same_request_reopens_its_folder(tmp_path: Path) -> None:
    asked = {"train": {"epochs": 1, "betas": (0.1, 0.2)}}
    run_dir = open_run(tmp_path / "run", "train", asked)
    (run_dir / "metrics.jsonl").write_text("")
    assert open_run(tmp_path / "run", "train", asked) == run_dir
    assert read_json(run_dir / "run.json")["asked"]["train"]["betas"] == [0.1, 0.2]


def test_another_request_is_refused_and_says_where_it_differs(tmp_path: Path) -> None:
    open_run(tmp_path / "run", "train", {"train": {"epochs": 1}})
    with pytest.raises(CtscribeError, match=r"train\.epochs \(1 there, 2 asked\)"):
        open_run(tmp_path / "run", "train", {"train": {"epochs": 2}})
    with pytest.raises(CtscribeError, match="stage generate"):
        open_run(tmp_path / "run", "generate", {"train": {"epochs": 1}})


def test_an_input_that_changed_is_named_in_words_and_knobs_with_their_values(
    tmp_path: Path,
) -> None:
    recipe = {"train": {"epochs": 1, "seed": 0}}
    before = {"pairs_sha256": "a" * 64, "start": "0" * 16, "recipe": recipe}
    run = open_run(tmp_path / "run", "train", before)
    for asked, told in (
        ({**before, "pairs_sha256": "b" * 64}, "differs in the pairs"),
        ({**before, "start": None}, "differs in the starting weights"),
        (
            {**before, "pairs_sha256": "b" * 64, "recipe": {"train": {"epochs": 2, "seed": 0}}},
            "differs in the pairs and recipe.train.epochs (1 there, 2 asked)",
        ),
    ):
        with pytest.raises(CtscribeError) as caught:
            require_same_run(run, "train", asked)
        assert f"hold the same run, but it holds one that {told};" in str(caught.value)
        assert "aaaa" not in str(caught.value)
    many = {"train": {f"knob_{number}": number for number in range(5)}}
    with pytest.raises(CtscribeError, match=r"knob_0 \(None there, 0 asked\) and .* 4 more"):
        require_same_run(run, "train", before | {"recipe": many})
    assert require_same_run(run, "train", before)
    assert not require_same_run(tmp_path / "new", "train", before)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_other_files_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(CtscribeError, match="other files"):
        open_run(tmp_path / "run", "train", {})
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_provenance_says_what_and_not_who() -> None:
    told = provenance()
    assert told["versions"]["numpy"]
    assert "Research use only" in told["use"]
    assert not any(str(Path.home()) in str(value) for value in told.values())


def test_the_recipe_of_a_run_is_read_again(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"train": {"epochs": 3}})
    open_run(tmp_path / "run", "train", {"recipe": recipe.model_dump(mode="json")})
    assert recipe_of(tmp_path / "run") == recipe


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"recipe": {"model": {"weights": None}}}, "recipe.model.weights is no knob"),
        (
            {"recipe": {"pairs": {"validation_fraction": 0.1}}},
            "recipe.pairs.validation_fraction is no knob",
        ),
        ({"recipe": {"train": {"epochs": 0}}}, "recipe.train.epochs: input should be"),
        ({}, "recipe: input should be"),
    ],
)
def test_a_run_of_another_version_is_refused_by_its_first_strange_knob(
    tmp_path: Path, asked: dict[str, object], told: str
) -> None:
    run = open_run(tmp_path / "run", "train", asked)
    with pytest.raises(CtscribeError) as caught:
        recipe_of(run)
    assert caught.value.code == "E_RUN"
    assert f"{run} must hold a run of this version, but {told}" in caught.value.sentence
    assert caught.value.sentence.endswith("; train it again")


def test_what_grows_belongs_to_one_request(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    claim(path, {"weights_sha256": "a"})
    claim(path, {"weights_sha256": "b"})  # nothing is there yet
    path.write_text("")
    claim(path, {"weights_sha256": "b"})
    with refusal("E_RUN_EXISTS", "differs in weights_sha256"):
        claim(path, {"weights_sha256": "a"})


def test_a_result_is_of_its_inputs_alone(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    assert not is_made_of(path, {"predictions_sha256": "a"})
    write_json(path, {"inputs": {"predictions_sha256": "a"}})
    assert is_made_of(path, {"predictions_sha256": "a"})
    assert not is_made_of(path, {"predictions_sha256": "b"})


@pytest.mark.parametrize("asked", [None, [], 3, {"recipe": None}, {"recipe": []}])
def test_a_run_without_a_recipe_is_refused(tmp_path: Path, asked: object) -> None:
    write_json(tmp_path / "run.json", {"stage": "train", "asked": asked})
    with refusal("E_RUN"):
        recipe_of(tmp_path)


@dataclass(frozen=True)
class Ended:
    loss: float


@pytest.mark.parametrize("wrong", [{}, {"loss": None}, {"loss": [1]}])
def test_a_result_of_another_kind_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    write_json(tmp_path / "result.json", {"loss": 1.5})
    assert read_result(tmp_path / "result.json", Ended) == Ended(1.5)
    write_json(tmp_path / "result.json", wrong)
    with refusal("E_JSON", "must be a Ended"):
        read_result(tmp_path / "result.json", Ended)


def test_a_start_is_named_by_its_weights(tmp_path: Path) -> None:
    assert start_sha256("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"
    (tmp_path / "model.safetensors").write_bytes(b"one")
    one = start_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert start_sha256(str(tmp_path)) != one
