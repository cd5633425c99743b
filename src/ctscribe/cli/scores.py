"""Commands about scores: scoring, comparing, tabulating, and whether a model looks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ctscribe.cli.console import print_text, say, stage
from ctscribe.cli.options import Overrides, RecipeName, Split, app
from ctscribe.cli.references import (
    NO_TRAINING,
    UNSAID,
    Against,
    Training,
    load_references,
    require_prepared,
)
from ctscribe.cli.texts import ClassifierFolder, load_classifier
from ctscribe.config import read_recipe
from ctscribe.files import write_json

if TYPE_CHECKING:
    from ctscribe.evaluate.label_source import LabelSource


@app.command
def evaluate(
    predictions: Path,
    *,
    against: Against = UNSAID,
    known: Training = NO_TRAINING,
    out: Annotated[
        Path | None, Parameter(help="JSON file; the page beside it has the same name.")
    ] = None,
    label_head: Annotated[
        Path | None,
        Parameter(help="CSV of VolumeName and 18 probabilities: what sentences alone would score."),
    ] = None,
    classifier: ClassifierFolder = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Score PREDICTIONS against reports, beside blind baselines, on a page.

    The reports are those of SPLIT of PREPARED, or all of the table REFERENCES.
    """
    from ctscribe.board.run import write_run_board
    from ctscribe.evaluate.scores import evaluate_predictions
    from ctscribe.tables import score_tables
    from ctscribe.tables.files import written_tables

    knobs = read_recipe(recipe, overrides)
    references = load_references(against, knobs.pairs.validation_fraction, known)
    scores = evaluate_predictions(
        predictions, references, knobs.evaluate, _label_source(classifier), label_head
    )
    target = out or predictions.with_name("scores.json")
    write_json(target, scores)
    print_text(written_tables(score_tables({"Model": scores}), "markdown"))
    page = target.with_suffix(".html")
    write_run_board(page, scores, predictions, references)
    say(f"Scores in {target}, and to read in {page}")


@app.command
def compare(
    base: Path,
    *others: Path,
    against: Against = UNSAID,
    out: Path = Path("comparison.json"),
    classifier: ClassifierFolder = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Tell which differences of the predictions OTHERS from those of BASE hold."""
    from ctscribe.evaluate.compare import compare_predictions
    from ctscribe.tables import differences_table, to_markdown
    from ctscribe.tables.files import run_names

    knobs = read_recipe(recipe, overrides)
    paths = run_names((base, *others))
    source = _label_source(classifier)
    references = load_references(against, knobs.pairs.validation_fraction)
    found = compare_predictions(paths, references, knobs.evaluate, source)
    write_json(out, found)
    print_text(to_markdown(differences_table(found["base"], found)))
    say(f"Comparison in {out}")


@app.command
def table(
    *scores: Path,
    form: Literal["markdown", "csv", "latex"] = "markdown",
    out: Annotated[Path | None, Parameter(help="Folder: one file per table.")] = None,
) -> None:
    """Print the tables of scores.json files, or of one comparison.json."""
    from ctscribe.tables.files import tables_of, write_tables, written_tables

    tables = tables_of(scores)
    if out is None:
        print_text(written_tables(tables, form))
    else:
        say("Written: " + ", ".join(str(path) for path in write_tables(out, tables, form)))


@app.command
def card(
    run: Path,
    *,
    against: Against = UNSAID,
    min_dependence: Annotated[
        float | None, Parameter(help="Fail when the lower bound of dependence is below.")
    ] = None,
    out: Path | None = None,
    classifier: ClassifierFolder = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Tell whether a model looks: show it noise, air, other patients' scans, and score.

    RUN is a training run, or a folder with what any model wrote from the volumes of
    `ctscribe alter`: real.csv, other_patient.csv, noise.csv and so on.
    """
    from ctscribe.card.files import find_view_files, make_card_of_files
    from ctscribe.card.score import require_dependence
    from ctscribe.card.write import headline

    split = against.split or "test"
    if paths := find_view_files(run):
        knobs = read_recipe(recipe, overrides)
        references = load_references(against, knobs.pairs.validation_fraction)
        target = out or run / (f"card_{references.split}" if references.split else "card")
        source = _label_source(classifier)
        found = make_card_of_files(paths, references, knobs.evaluate, target, source)
    else:
        target = out or run / f"card_{split}"
        found = _card_of_run(run, require_prepared(against), split, target)
    say(f"{headline(found)} Read {target / 'card.md'}")
    if min_dependence is not None:
        require_dependence(found, min_dependence)


@app.command
def alter(
    prepared: Path,
    out: Path,
    *,
    split: Split = "test",
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Write each scan of SPLIT as itself, noise, air, another's, shuffled and dropped to OUT.

    Let any model write reports from each folder, then give their files to `ctscribe card`.
    """
    from ctscribe.card.alter import write_altered

    fraction = read_recipe(recipe, overrides).pairs.validation_fraction
    with stage("Altering volumes") as progress:
        number = write_altered(prepared, split, fraction, out, progress=progress)
    say(f"{number} scans under every view in {out}")


def _card_of_run(run: Path, prepared: Path, split: Split, target: Path) -> dict[str, Any]:
    from ctscribe.card.make import make_card
    from ctscribe.run import recipe_of

    with stage("Measuring image dependence") as progress:
        return make_card(run, prepared, recipe_of(run), split, target, progress=progress)


def _label_source(classifier: Path | None) -> "LabelSource":
    from ctscribe.evaluate.label_source import RULES, LabelSource

    if classifier is None:
        return RULES
    loaded = load_classifier(classifier)
    return LabelSource(loaded.name, loaded.read)
