"""Commands about scores: scoring, comparing, tabulating, and whether a model looks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json, write_text
from ctscribe.base.types import Split
from ctscribe.cli.console import print_text, say, stage
from ctscribe.cli.options import Overrides, RecipeName, app, read_knobs

if TYPE_CHECKING:
    from ctscribe.base.recipe import SplitsConfig
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.classifier import Classifier
    from ctscribe.measure.references import References
    from ctscribe.measure.scans import LabelSource


ClassifierFolder = Annotated[
    Path | None,
    Parameter(name="--classifier", help="Folder of a text encoder with a head over 18 findings."),
]


@app.command
def label(
    reports: Path,
    *,
    out: Path,
    classifier: ClassifierFolder = None,
    evidence: Annotated[
        Path | None, Parameter(help="JSONL of the words and sentences that the rules rest on.")
    ] = None,
) -> None:
    """Write CT-RATE's 18 labels for each report of the CSV file REPORTS to OUT."""
    from ctscribe.text.labeler import label_csv, label_reports

    if classifier and evidence:
        raise CtscribeError(
            "E_OPTION",
            "--evidence is what the rules rest on, but --classifier is to read the findings",
        )
    read = label_reports if classifier is None else load_classifier(classifier).read
    num_reports = label_csv(reports, out, read=read, evidence_path=evidence)
    say(f"Labels of {num_reports} reports in {out}")
    if evidence:
        say(f"Words and sentences in {evidence}")


@app.command
def convert(
    predictions: Path,
    *,
    to: Annotated[Literal["csv", "vlm3d", "ct-chat"], Parameter(help="Whose format to write.")],
    out: Path,
) -> None:
    """Write PREDICTIONS (our JSONL, CSV, or JSON of VLM3D or CT-CHAT) in another tool's format."""
    from ctscribe.measure.predictions import format_written, read_written

    written = read_written(predictions)
    write_text(out, format_written(written, to))
    say(f"{len(written)} reports in {out}")


def load_classifier(folder: Path) -> "Classifier":
    """The classifier of a folder; tells on the console how many texts it had to cut."""
    from ctscribe.measure.classifier import MAX_TOKENS, Classifier

    def tell(num_cut: int, num_texts: int) -> None:
        if num_cut:
            say(f"note: {num_cut} of {num_texts} texts were cut at {MAX_TOKENS} tokens")

    return Classifier(folder, tell)


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
    against: Against, splits: "SplitsConfig", known: Training = NO_TRAINING
) -> "References":
    """Reads the references, and says on the console what was assumed of them.

    Args:
        against: Exactly one of prepared studies and tables.
        splits: Which training patients of tables are left out.
        known: Training reports beside tables.

    Raises:
        CtscribeError: ``E_OPTION`` for options that do not go together, and what is wrong with
            the files.
    """
    from ctscribe.measure.references import TablePaths, prepared_references, table_references

    _require_one(against, known)
    if against.references is None:
        return prepared_references(require_prepared(against), against.split or "test")
    paths = TablePaths(against.references, against.labels, against.metadata)
    training = None
    if known.training is not None:
        training = TablePaths(known.training, known.training_labels)
    found = table_references(paths, training, splits)
    if found.without_patient:
        say(f"note: {found.without_patient} scans name no patient; each counts as one of its own")
    if found.left_out:
        say(f"note: {len(found.left_out)} reports without findings are left out")
    return found


def require_prepared(against: Against) -> "Prepared":
    """The prepared folder, for a command that needs the volumes.

    Raises:
        CtscribeError: ``E_OPTION``.
    """
    from ctscribe.data.prepared import Prepared

    _require_one(against, NO_TRAINING)
    if against.prepared is None:
        raise CtscribeError(
            "E_OPTION",
            "the card of a run needs volumes (--prepared), but --references gives only reports",
        )
    return Prepared(against.prepared)


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
    from ctscribe.measure.scores import evaluate_predictions
    from ctscribe.show.score_tables import score_tables
    from ctscribe.show.scoreboard import write_run_board
    from ctscribe.show.tables import written_tables

    knobs = read_knobs(recipe, overrides)
    references = load_references(against, knobs.splits, known)
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
    from ctscribe.measure.compare import compare_predictions
    from ctscribe.show.score_tables import differences_table, run_names
    from ctscribe.show.tables import to_markdown

    knobs = read_knobs(recipe, overrides)
    paths = run_names((base, *others))
    source = _label_source(classifier)
    references = load_references(against, knobs.splits)
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
    from ctscribe.show.score_tables import tables_of
    from ctscribe.show.tables import write_tables, written_tables

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
    from ctscribe.measure.card_files import find_view_files, make_card_of_files
    from ctscribe.measure.card_scores import require_dependence
    from ctscribe.show.card import headline, write_card

    split = against.split or "test"
    if paths := find_view_files(run):
        knobs = read_knobs(recipe, overrides)
        references = load_references(against, knobs.splits)
        target = out or run / (f"card_{references.split}" if references.split else "card")
        source = _label_source(classifier)
        found = make_card_of_files(paths, references, knobs.evaluate, target, source)
    else:
        target = out or run / f"card_{split}"
        found = _card_of_run(run, require_prepared(against), split, target)
    write_card(target, found)
    say(f"{headline(found)} Read {target / 'card.md'}")
    if min_dependence is not None:
        require_dependence(found, min_dependence)


@app.command
def alter(
    prepared: Path,
    out: Path,
    *,
    split: Split = "test",
) -> None:
    """Write each scan of SPLIT as itself, noise, air, another's, shuffled and dropped to OUT.

    Let any model write reports from each folder, then give their files to `ctscribe card`.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.card_files import write_altered

    with stage("Altering volumes") as progress:
        number = write_altered(Prepared(prepared), split, out, progress=progress)
    say(f"{number} scans under every view in {out}")


def _card_of_run(run: Path, prepared: "Prepared", split: Split, target: Path) -> dict[str, Any]:
    from ctscribe.measure.card import make_card
    from ctscribe.write.writer import ReportWriter

    with stage("Measuring image dependence") as progress:
        return make_card(ReportWriter(run), prepared, split, target, progress=progress)


def _label_source(classifier: Path | None) -> "LabelSource":
    from ctscribe.measure.scans import RULES, LabelSource

    if classifier is None:
        return RULES
    loaded = load_classifier(classifier)
    return LabelSource(loaded.name, loaded.read)
