from pathlib import Path

import pytest

from ctscribe.base.grid import cell_recipe, grid
from ctscribe.base.recipe import read_recipe
from ctscribe.data.prepared import Prepared
from ctscribe.experiment import run_experiment
from tests.refusals import refusal
from tests.studies import study_row, write_prepared


def test_the_grid_has_each_cell_of_both_tables_once_per_seed() -> None:
    recipe = read_recipe("paper_gauss", ("experiment.seeds=[0, 1]",))
    names = [cell.name for cell in grid(recipe)]
    assert names[:5] == [
        "origin-beta0-seed0",
        "gauss-beta0.05-seed0",
        "gauss-beta0.1-seed0",
        "gauss-beta0.2-seed0",
        "heter-beta0.1-seed0",
    ]
    assert names[5:] == [name.replace("seed0", "seed1") for name in names[:5]]


def test_a_cell_changes_its_own_knobs_and_no_other() -> None:
    recipe = read_recipe("paper_origin")
    heter = grid(recipe)[-1]
    changed = cell_recipe(recipe, heter)
    assert (changed.pairs.strategy, changed.objective.beta) == ("heter", 0.1)
    assert changed.model == recipe.model
    assert changed.train == recipe.train
    assert changed.slices == recipe.slices


def test_ours_is_told_and_held_against_and_has_no_negatives_in_training() -> None:
    recipe = read_recipe("tiny")
    ours = grid(recipe)[-1]
    assert ours.name == "ours-beta0-seed0"
    changed = cell_recipe(recipe, ours)
    assert (changed.pairs.strategy, changed.objective.beta) == ("origin", 0)
    assert changed.model.cues
    assert changed.generate.contrast == "mean"
    assert not any(cell_recipe(recipe, cell).model.cues for cell in grid(recipe)[:-1])


@pytest.mark.parametrize("start", [None, "/nowhere"])
def test_ours_is_refused_before_training_where_nobody_could_tell(
    tmp_path: Path, start: str | None
) -> None:
    prepared = Prepared(tmp_path / "prepared")
    with refusal("E_NO_QUERIES", "experiment.ours needs starting weights with finding queries"):
        run_experiment(tmp_path / "out", prepared, read_recipe("tiny"), start, progress=print)
    assert not (tmp_path / "out").exists()


def test_what_no_cell_could_do_with_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = read_recipe("paper_origin")
    splits = ("train",) * 6 + ("validation",) * 3 + ("test",) * 3
    whole = [
        study_row(
            f"{'valid' if split == 'test' else 'train'}_{number}_a_1.nii.gz",
            split=split,
            labels=(number % 2,) * 18,
        )
        for number, split in enumerate(splits)
    ]
    unlabelled = [study.model_copy(update={"labels": None}) for study in whole]
    for prepared, code in (
        (write_prepared(tmp_path / "a", whole, read_recipe("tiny")), "E_PREPARED"),
        (write_prepared(tmp_path / "b", whole[:6], recipe), "E_EMPTY_SPLIT"),
        (write_prepared(tmp_path / "c", unlabelled, recipe), "E_LABELS"),
        (write_prepared(tmp_path / "d", whole, recipe), "E_WEIGHTS"),
    ):
        with refusal(code):
            run_experiment(tmp_path / "out", prepared, recipe, "/nowhere", progress=print)
        assert not (tmp_path / "out").exists()
