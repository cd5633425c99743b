from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PairsConfig, Recipe, change_recipe, read_recipe
from tests.refusals import refusal

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.y*ml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path.stem) == read_recipe(str(path))


def test_the_papers_recipes_hold_the_papers_numbers() -> None:
    """Sections 5.2, 6.3 and 7 of the paper."""
    for strategy in ("origin", "gauss", "heter"):
        recipe = read_recipe(f"paper_{strategy}")
        assert recipe.pairs.strategy == strategy
        assert recipe.pairs.min_label_distance == 10
        assert recipe.volume.spacing_mm == (0.75, 0.75, 1.5)
        assert recipe.slices.num_slices == 10
        assert recipe.slices.windows == "single"
        assert (recipe.objective.alpha, recipe.objective.beta) == (1.0, 0.1)
        assert recipe.train.learning_rate == 2e-5
        assert recipe.train.epochs == 1
        assert recipe.train.pairs_per_device == 1
        assert recipe.train.gradient_accumulation_steps == 8
        assert recipe.experiment.betas == (0.0, 0.05, 0.1, 0.2)


def test_both_suffixes_and_overrides_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("train: {epochs: 2}\n")
    recipe = read_recipe(str(path), ("train.epochs=3", "slices.frame_size_px=[112, 140]"))
    assert recipe.train.epochs == 3
    assert recipe.slices.frame_size_px == (112, 140)
    assert recipe.model == Recipe().model


def test_a_run_is_known_by_a_new_knob_only_where_it_is_turned() -> None:
    assert "mutual" not in Recipe().as_asked()["pairs"]
    assert PairsConfig(mutual=True).as_asked()["mutual"] is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epocs: 2}", "did you mean epochs"),
        ("trian: {epochs: 2}", "did you mean train"),
        ("train: {epochs: 0}", "greater than or equal to 1"),
        ("slices: {num_slices: 9}", "multiple of 2"),
        ("slices: {num_slices: 10, token_budget: 4}", "one visual token"),
        ("slices: {frame_size_px: [100, 112]}", "multiples of 28"),
        ("slices: {token_side_px: 32, frame_size_px: [56, 64]}", "multiples of 32"),
        ("slices: {token_side_px: 30}", "28 or 32"),
        ("slices: {projection: slab}", "projection: slab needs windows: three"),
        ("slices: {slab_mm: 4}", "greater than or equal to 5"),
        ("slices: {slab_mm: 31}", "less than or equal to 30"),
        ("train: [", "must be YAML"),
        ("just words", "must hold sections"),
        ("model: {preset: gpt}", "qwen2.5-vl-7b"),
        ("pairs: {strategy: heter, mutual: true}", r"an even train\.pairs_per_device"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(CtscribeError, match=rf"recipe\.yaml.*{words}.*E_RECIPE"):
        read_recipe(str(path))


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(CtscribeError, match="paper_gauss"):
        read_recipe("nothing-like-it")


@pytest.mark.parametrize(
    ("override", "words"),
    [("train.epochs", r"section\.key=value"), ("train.epochs.most=3", "but epochs is none")],
)
def test_an_override_of_no_knob_is_refused(override: str, words: str) -> None:
    with pytest.raises(CtscribeError, match=words):
        read_recipe("tiny", (override,))


def test_a_recipe_that_was_read_before_takes_overrides_too() -> None:
    recipe = read_recipe("tiny")
    changed = change_recipe(recipe, ("reinforce.updates=7", "generate.max_new_tokens=9"))
    assert (changed.reinforce.updates, changed.generate.max_new_tokens) == (7, 9)
    knobs = {"reinforce", "generate"}
    assert changed.model_dump(exclude=knobs) == recipe.model_dump(exclude=knobs)
    assert change_recipe(recipe, ()) == recipe
    for override, words in (
        ("reinforce.updats=7", "reinforce.updats is not a key of a recipe.*did you mean updates"),
        ("reinforce.samples_per_scan=1", "greater than or equal to 2"),
        ("reinforce", r"section\.key=value"),
    ):
        with pytest.raises(CtscribeError, match=rf"--set.*{words}.*E_RECIPE"):
            change_recipe(recipe, (override,))


def test_no_shipped_recipe_for_real_weights_cuts_the_longest_real_report() -> None:
    """1,733 tokens, of 800 reports of CT-RATE."""
    presets = ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3.5-4b")
    for name in ("ctscribe", "paper_heter", *presets):
        assert read_recipe(name).generate.max_new_tokens >= 1792


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "line 2 holds an alias"),
        ("train: !!python/object/apply:os.getcwd []", "line 1 holds an alias .* or a tag"),
        ("train: {epochs: !!int ''}", "or a tag"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}", "line 2 holds train again"),
        ("train: {epochs: 1, epochs: 2}", "line 1 holds epochs again"),
        ("? [a]\n: b", "a key that is no name"),
        ("[" * 30_000, "nests too deeply"),
        (f"train: {{epochs: {'9' * 5_000}}}", "5000 digits"),
        ("train: {epochs: 2001-99-99}", "month must be in 1..12"),
        ("train: {epochs: \0}", "must be YAML"),
        (f"train: {{epochs: {'x' * 60_000}}}", "valid integer"),
    ],
)
def test_a_hostile_recipe_is_one_short_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with refusal("E_RECIPE", words) as caught:
        read_recipe(str(path))
    assert len(str(caught.value)) < 500


def test_a_recipe_must_be_a_small_text_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"train: \xff")
    with refusal("E_ENCODING", "line 1 holds the byte 0xFF"):
        read_recipe(str(path))
    path.write_text("# \n" * 30_000)
    with refusal("E_READ", "more than the 65,536"):
        read_recipe(str(path))
    for name in (str(tmp_path), "x" * 5_000, "a\0b"):
        with refusal("E_RECIPE", "is neither"):
            read_recipe(name)


@pytest.mark.parametrize("value", ["[", "*a", "[" * 3_000, "2001-99-99", "!!int ''"])
def test_a_hostile_override_is_one_sentence(value: str) -> None:
    with refusal("E_RECIPE", "--set train.epochs must be YAML"):
        read_recipe("tiny", (f"train.epochs={value}",))
    with refusal("E_RECIPE", "--set train.epochs must be YAML"):
        change_recipe(Recipe(), (f"train.epochs={value}",))
