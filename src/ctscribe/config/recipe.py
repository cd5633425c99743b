"""All knobs together, read from a YAML file and from the command line."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from ctscribe.config.data import (
    PairsConfig,
    PhantomConfig,
    SlicesConfig,
    VolumeConfig,
)
from ctscribe.config.learning import (
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
    WarmUpConfig,
)
from ctscribe.config.measuring import (
    EvaluateConfig,
    ExperimentConfig,
    GenerateConfig,
)
from ctscribe.config.section import Section
from ctscribe.errors import CtscribeError


class Recipe(Section):
    """All knobs of one experiment."""

    phantom: PhantomConfig = PhantomConfig()
    volume: VolumeConfig = VolumeConfig()
    slices: SlicesConfig = SlicesConfig()
    pairs: PairsConfig = PairsConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    warm_up: WarmUpConfig = WarmUpConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    experiment: ExperimentConfig = ExperimentConfig()

    @model_validator(mode="after")
    def _labels_have_a_reader(self) -> "Recipe":
        if self.objective.label_weight and not self.model.slice_attention:
            raise ValueError("objective.label_weight above 0 needs model.slice_attention: true")
        return self


def read_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe by path or by the name of a shipped one, then applies ``section.key=value``.

    Raises:
        CtscribeError: ``E_RECIPE`` naming the recipe, the key and, for a misspelt one, the
            nearest that exists.
    """
    path = _find(name)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(tree, dict):
            raise CtscribeError(
                "E_RECIPE", f"{path} must hold sections such as `train:`, but holds none"
            )
        for override in overrides:
            _apply(tree, override)
        return Recipe.model_validate(tree)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise CtscribeError("E_RECIPE", f"{path} must be YAML, but {detail}") from error
    except ValidationError as error:
        raise CtscribeError("E_RECIPE", _explain(path, error)) from error


def _find(name: str) -> Path:
    here = Path(__file__).resolve().parents[1]
    folders = [here / "recipes", here.parents[1] / "recipes"]
    shipped = sorted(p for folder in folders for p in folder.glob("*.y*ml"))
    if Path(name).is_file():
        return Path(name)
    for path in shipped:
        if path.stem == name:
            return path
    known = ", ".join(path.stem for path in shipped)
    raise CtscribeError(
        "E_RECIPE", f"the recipe must be a YAML file or one of {known}, but {name!r} is neither"
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise CtscribeError("E_RECIPE", f"--set must be section.key=value, but is {override!r}")
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[leaf] = yaml.safe_load(value)


def _explain(path: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: {where} is wrong, {first['msg'].lower()} (got {first['input']!r})"
    model: Any = Recipe
    for part in first["loc"][:-1]:
        model = model.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(first["loc"][-1]), list(model.model_fields), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(model.model_fields)}"
    return f"{path}: {where} is not a key of a recipe ({hint})"
