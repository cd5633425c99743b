"""Tables 1 to 3 of an experiment, the paper's and ours.

In: the scores, gaps and comparison that its cells left behind. Out: ``table1`` to ``table3`` as
Markdown, CSV and LaTeX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctscribe.base.files import read_json, write_text
from ctscribe.base.grid import TEMPLATE_SCORES, TITLES, Cell
from ctscribe.base.recipe import Recipe
from ctscribe.show.score_tables import Scores, differences_table, systems_table
from ctscribe.show.tables import FORMS, Table

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "coverage": "Coverage",
    "precision": "Precision",
    "label_accuracy": "Accuracy",
}
"""Columns of Tables 1 and 2, by the key `measure.scores` writes; more is better in each."""


def write_experiment_tables(out: Path, recipe: Recipe, folders: Mapping[Cell, Path]) -> list[Path]:
    """Writes Tables 1 to 3 into ``out`` in every form; returns the paths of the Markdown."""
    written = []
    for number, table in enumerate(experiment_tables(out, recipe, folders), 1):
        for write, suffix in FORMS.values():
            write_text(out / f"table{number}{suffix}", write(table))
        written.append(out / f"table{number}.md")
    return written


def experiment_tables(out: Path, recipe: Recipe, folders: Mapping[Cell, Path]) -> list[Table]:
    """Tables 1 and 2 from the scores of every cell, and Table 3, which differences hold.

    Args:
        out: Experiment folder with its comparison.
        folders: Of all cells of its grid, finished.

    Raises:
        CtscribeError: ``E_MISSING`` when a cell is not finished.
    """
    measured: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for cell, folder in folders.items():
        scores = read_json(folder / "scores.json") | {"gap": read_json(folder / "gap.json")}
        measured.setdefault((cell.variant, cell.beta), []).append(scores)
    beta = recipe.objective.beta
    origin = measured["origin", 0.0]
    other = recipe.experiment.beta_strategy
    variants = {
        TITLES[name]: scores for (name, weight), scores in measured.items() if weight in (0.0, beta)
    }
    template = [folder / TEMPLATE_SCORES for cell, folder in folders.items() if not cell.beta]
    if found := [read_json(path) for path in template if path.exists()]:
        variants["Labels → template"] = found
    betas = {b: measured[other, b] if b else origin for b in recipe.experiment.betas}
    differences = differences_table("Origin", read_json(out / "comparison.json"))
    return [
        table_1(variants, beta),
        table_2(betas, other),
        replace(differences, title=f"Table 3. {differences.title}"),
    ]


def table_1(variants: Mapping[str, Sequence[Scores]], beta: float) -> Table:
    """The paper's Table 1 with precision, mismatch gap and the blind baselines.

    Args:
        variants: Row title, e.g. ``Origin``, to its scores, one per training seed.
        beta: Weight of the negatives where a variant has any.
    """
    title = f"Table 1. What negatives change (β = {beta:g})"
    return systems_table(title, "System", variants, METRICS)


def table_2(betas: Mapping[float, Sequence[Scores]], strategy: str) -> Table:
    """The paper's Table 2: the weight β of the negatives; 0 is Origin.

    Args:
        betas: Weight to its scores, one per training seed.
        strategy: Whose negatives, e.g. ``gauss``.
    """
    systems = {f"β = {beta:g}": results for beta, results in sorted(betas.items())}
    title = f"Table 2. Weight of the negatives ({strategy})"
    return systems_table(title, "Weight", systems, METRICS)
