"""Commands about scores: scoring, comparing, tabulating, and whether a model looks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json
from ctscribe.base.types import PredictionFormat, Split
from ctscribe.cli.console import print_text, say, stage
from ctscribe.cli.options import AllowOutside, Overrides, ScoringRecipeName, app
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
    from collections.abc import Mapping

    from ctscribe.base.recipe import Recipe
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
    to: Annotated[
        Literal["csv", "vlm3d"],
        Parameter(help="Keyed as REPORTS are, or as the challenge's: AccessionNo, no suffix."),
    ] = "csv",
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
    num_reports = label_csv(
        reports, out, read=read, evidence_path=evidence, as_challenge=to == "vlm3d"
    )
    say(f"Labels of {num_reports} reports in {out}")
    if evidence:
        say(f"Words and sentences in {evidence}")


@app.command
def convert(
    predictions: Path,
    *,
    to: Annotated[PredictionFormat, Parameter(help="Whose format to write; see docs/readers.md.")],
    out: Path,
    references: Annotated[
        Path | None,
        Parameter(help="CSV of the true reports: CT2Rep's files name no volume and need it."),
    ] = None,
) -> None:
    """Write PREDICTIONS (our JSONL, CSV, VLM3D's, CT-CHAT's or CT2Rep's) in another tool's format.

    For ct2rep, OUT is res.csv, and gts.csv is written beside it.
    """
    from ctscribe.measure.predictions import Noticed, convert_predictions
    from ctscribe.measure.references import TablePaths, read_reference_tables

    noticed, studies = Noticed(), None
    if references is not None:
        studies = read_reference_tables(TablePaths(references), "valid").studies
    num_reports, paths = convert_predictions(predictions, out, to, studies, noticed)
    _say_noticed(noticed.facts())
    say(f"{num_reports} reports in {' and '.join(map(str, paths))}")


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
    _say_noticed(scores["n"])
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
    _say_noticed(found["n"])
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
    *others: Path,
    against: ReferenceOptions = NO_REFERENCES,
    min_dependence: Annotated[
        float | None, Parameter(help="Fail when the lower bound of dependence is below.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder of the card; of several systems, what compares them.")
    ] = None,
    classifier: ClassifierFolder = None,
    recipe: ScoringRecipeName = None,
    overrides: Overrides = (),
) -> None:
    """Tell whether a model looks: show it noise, air, other patients' scans, and score.

    RUN is a training run, whose own recipe counts, or a folder with what any model wrote from the
    volumes of `ctscribe alter`: real.csv, other_patient.csv, noise.csv and so on. With OTHERS,
    each gets its card, and all stand side by side.
    """
    from ctscribe.measure.card_scores import require_dependence
    from ctscribe.show.score_tables import run_names

    knobs = scoring_knobs(recipe, overrides, run, against)
    scoring = _Scoring(against, knobs, _label_source(classifier))
    cards = {
        name: _make_card(path, scoring, None if others else out)
        for name, path in run_names((run, *others)).items()
    }
    if others:
        folders = {name: folder for name, (_, folder) in cards.items()}
        _compare_cards(folders, scoring, out or Path("cards"))
    for found, _ in cards.values():
        if min_dependence is not None:
            require_dependence(found, min_dependence)


@final
@dataclass(frozen=True)
class _Scoring:
    """What cards are made with; the references are read once, and only where they are needed."""

    against: ReferenceOptions
    knobs: "Recipe"
    source: "LabelSource"

    @cached_property
    def references(self) -> "References":
        return load_references(self.against, self.knobs.splits)


def _make_card(run: Path, scoring: _Scoring, out: Path | None) -> tuple[dict[str, Any], Path]:
    """Writes the card of a run or of a folder of reports; returns it, and where the reports lie."""
    from ctscribe.measure.card_files import find_view_files, make_card_of_files
    from ctscribe.show.card import headline, write_card

    if paths := find_view_files(run):
        references, config = scoring.references, scoring.knobs.evaluate
        written = run
        target = out or run / (f"card_{references.split}" if references.split else "card")
        found = make_card_of_files(paths, references, config, target, scoring.source)
        _say_noticed(found["noticed"])
    else:
        from ctscribe.measure.card import make_card
        from ctscribe.write.writer import ReportWriter

        split = scoring.against.split or "test"
        target = written = out or run / f"card_{split}"
        studies = require_prepared(scoring.against)
        with stage("Measuring image dependence", "readings") as progress:
            found = make_card(ReportWriter(run), studies, split, target, progress=progress)
    write_card(target, found)
    say(f"{headline(found)} Read {target / 'card.md'}")
    return found, written


def _compare_cards(folders: dict[str, Path], scoring: _Scoring, out: Path) -> None:
    from ctscribe.measure.card_compare import compare_cards
    from ctscribe.measure.card_files import find_view_files, read_views
    from ctscribe.show.cards import cards_tables, write_cards
    from ctscribe.show.tables import to_markdown

    written = {}
    for name, folder in folders.items():
        paths = find_view_files(folder)
        truth, written[name] = read_views(paths, scoring.references, scoring.source)
    comparison = compare_cards(written, truth, scoring.knobs.evaluate, scoring.source.name)
    write_json(out / "cards.json", comparison)
    print_text(to_markdown(cards_tables(comparison)[0]))
    say("Written: " + ", ".join(str(path) for path in write_cards(out, comparison)))


@app.command
def alter(prepared: Path, out: Path, *, split: Split = "test") -> None:
    """Write each scan of SPLIT under every view of the card to OUT, one folder per view.

    Let any model write reports from each folder, then give their files to `ctscribe card`.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.card_files import write_altered

    with stage("Altering volumes", "volumes") as progress:
        number = write_altered(Prepared(prepared), split, out, progress=progress)
    say(f"{number} scans under every view in {out}")


@app.command
def ground(
    predicted: Path,
    reference: Path,
    *,
    prepared: Annotated[
        Path | None, Parameter(help="Prepared studies: needed where PREDICTED is evidence.jsonl.")
    ] = None,
    allow_outside: AllowOutside = False,
    out: Path = Path("grounding.json"),
) -> None:
    """Tell whether PREDICTED boxes or masks of findings lie where REFERENCE has them.

    PREDICTED is a run's evidence_*.jsonl, JSONL of volume_name, finding and box_mm or box_voxels,
    or masks. REFERENCE is masks, such boxes, or a phantom's truth.jsonl; masks come as for
    `warm-up --where`, and one per sentence as ReXGroundingCT has them.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.grounding import ground as compare_places
    from ctscribe.show.tables import written_tables
    from ctscribe.show.trust_tables import grounding_tables

    with stage("Comparing places", "volumes") as progress:
        found = compare_places(
            predicted,
            reference,
            Prepared(prepared) if prepared else None,
            allow_outside=allow_outside,
            progress=progress,
        )
    write_json(out, found)
    print_text(written_tables(grounding_tables(found), "markdown"))
    say(f"Grounding in {out}")


def _say_noticed(facts: "Mapping[str, Any]") -> None:
    from ctscribe.measure.predictions import tell_noticed

    for sentence in tell_noticed(facts):
        say(f"note: {sentence}")


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
