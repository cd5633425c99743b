"""The cells of a recipe's grid: the training runs that Tables 1 and 2 compare."""

from dataclasses import dataclass
from typing import final

from ctscribe.base.recipe import Recipe

STEPS = ("pairs.jsonl", "train/best", "predictions.jsonl", "gap.json", "scores.json")
"""What a cell leaves behind, in order."""
TEMPLATE_SCORES = "scores_template.json"
"""Also, where a run has finding queries: what stock sentences of its labels score."""


@final
@dataclass(frozen=True)
class Cell:
    """One training run of the grid: whose negatives, how heavy, and with which seed."""

    strategy: str
    beta: float
    seed: int

    @property
    def name(self) -> str:
        """Folder name, e.g. ``heter-beta0.1-seed0``."""
        return f"{self.strategy}-beta{self.beta:g}-seed{self.seed}"


def grid(recipe: Recipe) -> list[Cell]:
    """The cells of Tables 1 and 2 without repetition; β = 0 is Origin, trained once per seed."""
    beta = recipe.objective.beta
    chosen = {("origin", 0.0), ("gauss", beta), ("heter", beta)}
    chosen |= {
        (recipe.experiment.beta_strategy, other) for other in recipe.experiment.betas if other
    }
    order = ("origin", "gauss", "heter")
    cells = sorted(chosen, key=lambda cell: (order.index(cell[0]), cell[1]))
    return [Cell(*cell, seed) for seed in recipe.experiment.seeds for cell in cells]


def cell_recipe(recipe: Recipe, cell: Cell) -> Recipe:
    """The recipe with which `cell` is trained."""
    tree = recipe.model_dump()
    tree["pairs"] |= {"strategy": cell.strategy, "seed": cell.seed}
    tree["objective"]["beta"] = cell.beta
    tree["train"]["seed"] = cell.seed
    return Recipe.model_validate(tree)
