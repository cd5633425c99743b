"""The cells of a recipe's grid: the training runs that Tables 1 and 2 compare."""

from dataclasses import dataclass
from typing import final

from ctscribe.base.recipe import Recipe

STEPS = ("pairs.jsonl", "train/best", "predictions.jsonl", "gap.json", "scores.json")
"""The files that a cell writes, in order."""
TEMPLATE_SCORES = "scores_template.json"
"""Scores of stock sentences written from the labels that a run's finding queries predict."""

TITLES = {"origin": "Origin", "gauss": "Gauss", "heter": "Heter", "ours": "Ours"}
"""Titles of the variants, in the order of the tables; ours uses the negative in decoding."""


@final
@dataclass(frozen=True)
class Cell:
    """One training run of the grid: which variant, its negatives' weight, and which seed."""

    variant: str
    """A key of `TITLES`."""
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Folder name, e.g. ``heter-beta0.1-seed0``."""
        return f"{self.variant}-beta{self.beta:g}-seed{self.seed}"


def grid(recipe: Recipe) -> list[Cell]:
    """The cells of Tables 1 and 2 without repetition; β = 0 is Origin, trained once per seed."""
    beta = recipe.objective.beta
    chosen = {("origin", 0.0), ("gauss", beta), ("heter", beta)}
    chosen |= {
        (recipe.experiment.beta_strategy, other) for other in recipe.experiment.betas if other
    }
    if recipe.experiment.ours:
        chosen |= {("ours", 0.0)}
    order = list(TITLES)
    cells = sorted(chosen, key=lambda cell: (order.index(cell[0]), cell[1]))
    return [Cell(*cell, seed) for seed in recipe.experiment.seeds for cell in cells]


def cell_recipe(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe with which `cell` is trained."""
    tree = recipe.model_dump()
    is_ours = cell.variant == "ours"
    tree["pairs"] |= {"strategy": "origin" if is_ours else cell.variant, "seed": cell.seed}
    if is_ours:
        tree["model"]["cues"] = True
        tree["generate"]["contrast"] = "mean"
    tree["objective"]["beta"] = cell.beta
    tree["train"]["seed"] = cell.seed
    return Recipe.model_validate(tree)
