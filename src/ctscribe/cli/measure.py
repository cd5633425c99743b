"""Commands about scores: scoring, comparing, tabulating, and whether a model looks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json, write_text
from ctscribe.base.types import Split
from ctscribe.cli.console import print_text, say, stage
from ctscribe.cli.options import Overrides, ScoringRecipeName, app
from ctscribe.cli.references import (
    NO_REFERENCES,
    NO_TRAINING,
    ReferenceOptions,
    TrainingOptions,
    load_references,
    require_prepared,
    scoring_knobs,
)

if TYPE_CHECKING:
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
    from ctscribe.text.labeler import label_csv

    if classifier and evidence:
        raise CtscribeError(
            "E_OPTION",
            "--evidence is what the rules rest on, but --classifier is to read the findings",
        )
    read = _label_source(classifier).read
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


@app.command
def evaluate(
    predictions: Path,
    *,
    against: ReferenceOptions = NO_REFERENCES,
    known: TrainingOptions = NO_TRAINING,
    out: Annotated[
        Path | None, Parameter(help="JSON file; the page beside it has the same name.")
    ] = None,
    label_head: Annotated[
        Path | None,
        Parameter(help="CSV of VolumeName and 18 probabilities: what sentences alone would score."),
    ] = None,
    classifier: ClassifierFolder = None,
    recipe: ScoringRecipeName = None,
    overrides: Overrides = (),
) -> None:
    """Score PREDICTIONS against reports, beside blind baselines, on a page.

    The reports are those of SPLIT of PREPARED, or all of the table REFERENCES.
    """
    from ctscribe.measure.scores import evaluate_predictions
    from ctscribe.show.score_tables import cut_short, score_tables
    from ctscribe.show.scoreboard import write_run_board
    from ctscribe.show.tables import written_tables

    knobs = scoring_knobs(recipe, overrides, predictions.parent, against)
    references = load_references(against, knobs.splits, known)
    scores = evaluate_predictions(
        predictions, references, knobs.evaluate, _label_source(classifier), label_head
    )
    target = out or predictions.with_name("scores.json")
    write_json(target, scores)
    print_text(written_tables(score_tables({"Model": scores}), "markdown"))
    if (cut := cut_short(scores)).known:
        say(f"note: {cut}")
    page = target.with_suffix(".html")
    write_run_board(page, scores, predictions, references)
    say(f"Scores in {target}, and to read in {page}")


@app.command
def compare(
    base: Path,
    *others: Path,
    against: ReferenceOptions = NO_REFERENCES,
    out: Path = Path("comparison.json"),
    classifier: ClassifierFolder = None,
    recipe: ScoringRecipeName = None,
    overrides: Overrides = (),
) -> None:
    """Tell which differences of the predictions OTHERS from those of BASE hold."""
    from ctscribe.measure.compare import compare_predictions
    from ctscribe.show.score_tables import differences_table, run_names
    from ctscribe.show.tables import to_markdown

    knobs = scoring_knobs(recipe, overrides, base.parent, against)
    paths = run_names((base, *others))
    references = load_references(against, knobs.splits)
    found = compare_predictions(paths, references, knobs.evaluate, _label_source(classifier))
    write_json(out, found)
    print_text(to_markdown(differences_table(found["base"], found)))
    say(f"Comparison in {out}")


@app.command
def table(
    *scores: Path,
    form: Literal["markdown", "csv", "latex"] = "markdown",
    out: Annotated[Path | None, Parameter(help="Folder: one file per table.")] = None,
    published: Annotated[
        bool, Parameter(negative="", help="Also what others have published on CT-RATE, set apart.")
    ] = False,
) -> None:
    """Print the tables of scores.json files, or of one comparison.json."""
    from ctscribe.show.published import published_table
    from ctscribe.show.score_tables import tables_of
    from ctscribe.show.tables import write_tables, written_tables

    tables = [*tables_of(scores), *([published_table()] if published else [])]
    if out is None:
        print_text(written_tables(tables, form))
    else:
        say("Written: " + ", ".join(str(path) for path in write_tables(out, tables, form)))


@app.command
def card(
    run: Path,
    *,
    against: ReferenceOptions = NO_REFERENCES,
    min_dependence: Annotated[
        float | None, Parameter(help="Fail when the lower bound of dependence is below.")
    ] = None,
    out: Path | None = None,
    classifier: ClassifierFolder = None,
    recipe: ScoringRecipeName = None,
    overrides: Overrides = (),
) -> None:
    """Tell whether a model looks: show it noise, air, other patients' scans, and score.

    RUN is a training run, whose own recipe counts, or a folder with what any model wrote from the
    volumes of `ctscribe alter`: real.csv, other_patient.csv, noise.csv and so on.
    """
    from ctscribe.measure.card_files import find_view_files, make_card_of_files
    from ctscribe.measure.card_scores import require_dependence
    from ctscribe.show.card import headline, write_card

    split = against.split or "test"
    if paths := find_view_files(run):
        knobs = scoring_knobs(recipe, overrides, run, against)
        references = load_references(against, knobs.splits)
        target = out or run / (f"card_{references.split}" if references.split else "card")
        source = _label_source(classifier)
        found = make_card_of_files(paths, references, knobs.evaluate, target, source)
    else:
        from ctscribe.measure.card import make_card
        from ctscribe.write.writer import ReportWriter

        target, studies = out or run / f"card_{split}", require_prepared(against)
        with stage("Measuring image dependence", "readings") as progress:
            found = make_card(ReportWriter(run), studies, split, target, progress=progress)
    write_card(target, found)
    say(f"{headline(found)} Read {target / 'card.md'}")
    if min_dependence is not None:
        require_dependence(found, min_dependence)


@app.command
def alter(prepared: Path, out: Path, *, split: Split = "test") -> None:
    """Write each scan of SPLIT as itself, noise, air, another's, shuffled and dropped to OUT.

    Let any model write reports from each folder, then give their files to `ctscribe card`.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.card_files import write_altered

    with stage("Altering volumes", "volumes") as progress:
        number = write_altered(Prepared(prepared), split, out, progress=progress)
    say(f"{number} scans under every view in {out}")


def _label_source(classifier: Path | None) -> "LabelSource":
    """Who reads findings: the rules, or a classifier that tells how many texts it had to cut."""
    from ctscribe.measure.classifier import MAX_TOKENS, Classifier
    from ctscribe.measure.scans import RULES, LabelSource

    def tell(num_cut: int, num_texts: int) -> None:
        if num_cut:
            say(f"note: {num_cut} of {num_texts} texts were cut at {MAX_TOKENS} tokens")

    if classifier is None:
        return RULES
    loaded = Classifier(classifier, tell)
    return LabelSource(loaded.name, loaded.read)
