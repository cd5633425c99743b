"""What predictions are scored against, as several commands are told it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from cyclopts import Parameter

from ctscribe.cli.console import say
from ctscribe.cli.options import Split
from ctscribe.errors import CtscribeError

if TYPE_CHECKING:
    from ctscribe.evaluate.references import References


@final
@Parameter(name="*")
@dataclass(frozen=True)
class Against:
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
class Training:
    """What the blind baselines know, beside references out of tables."""

    training: Annotated[
        Path | None,
        Parameter(help="CSV of training reports for the baselines; without, REFERENCES serve."),
    ] = None
    training_labels: Annotated[
        Path | None, Parameter(help="CSV of TRAINING's 18 findings, likewise.")
    ] = None


UNSAID = Against()
NO_TRAINING = Training()


def load_references(
    against: Against, validation_fraction: float, known: Training = NO_TRAINING
) -> "References":
    """Reads the references, and says on the console what was assumed of them.

    Args:
        against: Exactly one of prepared studies and tables.
        validation_fraction: Expected share of training patients held out.
        known: Training reports beside tables.

    Raises:
        CtscribeError: ``E_OPTION`` for options that do not go together, and what is wrong with
            the files.
    """
    from ctscribe.evaluate.reference_tables import TablePaths
    from ctscribe.evaluate.references import prepared_references, table_references

    _require_one(against, known)
    if against.references is None:
        return prepared_references(
            require_prepared(against), against.split or "test", validation_fraction
        )
    paths = TablePaths(against.references, against.labels, against.metadata)
    training = None
    if known.training is not None:
        training = TablePaths(known.training, known.training_labels)
    found = table_references(paths, training, validation_fraction)
    if found.without_patient:
        say(f"note: {found.without_patient} scans name no patient; each counts as one of its own")
    if found.left_out:
        say(f"note: {len(found.left_out)} reports without findings are left out")
    return found


def require_prepared(against: Against) -> Path:
    """The prepared folder, for a command that needs the volumes.

    Raises:
        CtscribeError: ``E_OPTION``.
    """
    _require_one(against, NO_TRAINING)
    if against.prepared is None:
        raise CtscribeError(
            "E_OPTION",
            "the card of a run needs volumes (--prepared), but --references gives only reports",
        )
    return against.prepared


def _require_one(against: Against, known: Training) -> None:
    if (against.prepared is None) == (against.references is None):
        found = "neither is" if against.prepared is None else "both are"
        raise CtscribeError(
            "E_OPTION",
            "reports to score against must come from either --prepared or --references, but "
            f"{found} given",
        )
    tables = {
        "--labels": against.labels,
        "--metadata": against.metadata,
        "--training": known.training,
        "--training-labels": known.training_labels,
    }
    needless = [name for name, path in tables.items() if path is not None]
    if against.prepared is not None and needless:
        raise CtscribeError(
            "E_OPTION",
            f"{needless[0]} goes with --references, but --prepared is given, whose studies hold "
            "that already",
        )
    if against.references is not None and against.split is not None:
        raise CtscribeError(
            "E_OPTION",
            "--split chooses among prepared studies, but of --references every report is scored",
        )
    if known.training is None and known.training_labels is not None:
        raise CtscribeError(
            "E_OPTION",
            "--training-labels goes with --training, but that is not given",
        )
