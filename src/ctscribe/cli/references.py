"""The options that say what predictions are scored against, checked and read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Split
from ctscribe.cli.console import say

if TYPE_CHECKING:
    from ctscribe.base.recipe import Recipe, SplitsConfig
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.references import References


@final
@Parameter(name="*")
@dataclass(frozen=True)
class ReferenceOptions:
    """Prepared studies, or tables alone."""

    prepared: Annotated[
        Path | None, Parameter(help="What `ctscribe prepare` wrote: its reports of SPLIT.")
    ] = None
    references: Annotated[
        Path | None,
        Parameter(help="In place of PREPARED: CSV of reports, such as CT-RATE's; no volumes."),
    ] = None
    labels: Annotated[
        Path | None,
        Parameter(help="CSV of their 18 findings; else from columns of REFERENCES, or the text."),
    ] = None
    metadata: Annotated[
        Path | None, Parameter(help="CSV of their scanner, sex and age, such as CT-RATE's.")
    ] = None
    split: Annotated[Split | None, Parameter(help="Of PREPARED; test unless another is given.")] = (
        None
    )


@final
@Parameter(name="*")
@dataclass(frozen=True)
class TrainingOptions:
    """The reports that the blind baselines know, beside references out of tables."""

    training: Annotated[
        Path | None,
        Parameter(help="CSV of training reports for the baselines; without, REFERENCES serve."),
    ] = None
    training_labels: Annotated[
        Path | None, Parameter(help="CSV of TRAINING's 18 findings, likewise.")
    ] = None


NO_REFERENCES = ReferenceOptions()
NO_TRAINING = TrainingOptions()


def scoring_knobs(
    recipe: str | None, overrides: tuple[str, ...], written_in: Path, against: ReferenceOptions
) -> "Recipe":
    """The recipe by which reports are scored: the one given, else that of the run they lie in.

    Reports of no run, such as another tool's, are scored by what every recipe has unless it says
    otherwise, which is told on the console.

    Raises:
        CtscribeError: ``E_RECIPE``, ``E_RUN``, and ``E_PREPARED`` where the studies to score
            against were prepared otherwise than the recipe asks.
    """
    from ctscribe.base.recipe import Recipe, change_recipe, read_recipe
    from ctscribe.base.runs import is_writers_run, recipe_of

    if recipe is not None:
        knobs = read_recipe(recipe, overrides)
    elif is_writers_run(written_in):
        knobs = change_recipe(recipe_of(written_in), overrides)
    else:
        knobs = change_recipe(Recipe(), overrides)
        scoring = knobs.evaluate
        say(
            f"note: no --recipe, and no run beside the reports: scored by the profile "
            f"{scoring.profile}, with seed {scoring.seed}"
        )
        return knobs
    if against.prepared is not None:
        require_prepared(against).require(knobs)
    return knobs


def load_references(
    against: ReferenceOptions, splits: "SplitsConfig", known: TrainingOptions = NO_TRAINING
) -> "References":
    """Reads the references, and says on the console what was assumed of them.

    ``splits`` says which training patients of tables the baselines do not know.

    Raises:
        CtscribeError: ``E_OPTION`` for options that do not go together, and what is wrong with
            the files.
    """
    from ctscribe.measure.references import TablePaths, prepared_references, table_references

    _check(against, known)
    if against.references is None:
        return prepared_references(require_prepared(against), against.split or "test")
    paths = TablePaths(against.references, against.labels, against.metadata)
    training = TablePaths(known.training, known.training_labels) if known.training else None
    found = table_references(paths, training, splits)
    if found.without_patient:
        say(f"note: {found.without_patient} scans name no patient; each counts as one of its own")
    if found.left_out:
        say(f"note: {len(found.left_out)} reports without findings are left out")
    return found


def require_prepared(against: ReferenceOptions) -> "Prepared":
    """The prepared folder, for a command that needs the volumes.

    Raises:
        CtscribeError: ``E_OPTION``.
    """
    from ctscribe.data.prepared import Prepared

    _check(against, NO_TRAINING)
    if against.prepared is None:
        raise CtscribeError(
            "E_OPTION",
            "the card of a run needs volumes (--prepared), but --references gives only reports",
        )
    return Prepared(against.prepared)


def _check(against: ReferenceOptions, known: TrainingOptions) -> None:
    """Refuses options that do not go together."""
    of_tables = {
        "--labels": against.labels,
        "--metadata": against.metadata,
        "--training": known.training,
        "--training-labels": known.training_labels,
    }
    needless = next((name for name, path in of_tables.items() if path is not None), None)
    both = "reports to score against must come from either --prepared or --references, but "
    if against.prepared is None and against.references is None:
        fault = f"{both}neither is given"
    elif against.prepared is not None and against.references is not None:
        fault = f"{both}both are given"
    elif against.prepared is not None and needless:
        fault = (
            f"{needless} goes with --references, but --prepared is given, whose studies hold "
            "that already"
        )
    elif against.references is not None and against.split is not None:
        fault = "--split chooses among prepared studies, but of --references every report is scored"
    elif known.training is None and known.training_labels is not None:
        fault = "--training-labels goes with --training, but that is not given"
    else:
        return
    raise CtscribeError("E_OPTION", fault)
