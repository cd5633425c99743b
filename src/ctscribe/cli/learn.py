"""Commands about models: warming up, training, tuning, evidence, whole experiments, exporting."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.base.files import write_json
from ctscribe.base.types import Split
from ctscribe.cli.console import print_text, say, show_tables, stage, stages
from ctscribe.cli.options import (
    CORES,
    AllowOutside,
    OperatingPoint,
    Overrides,
    PhantomRecipeName,
    Processes,
    RecipeName,
    Start,
    Where,
    app,
    read_knobs,
)

if TYPE_CHECKING:
    from ctscribe.learn.train.run_log import MetricsRow

STORING = ("Storing features", "volumes")


@app.command
def warm_up(
    out: Path,
    *,
    prepared: Annotated[
        Path | None, Parameter(help="Prepared studies; without, phantoms are drawn.")
    ] = None,
    where: Where = None,
    allow_outside: AllowOutside = False,
    start: Start = None,
    recipe: RecipeName = None,
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Teach a vision tower where findings are; OUT becomes a starting checkpoint."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.warm_up import warm_up as warm_up_stage

    with stage("Warming up the tower", "thousandths") as progress:
        warm_up_stage(
            out,
            read_knobs(recipe, overrides),
            Prepared(prepared) if prepared else None,
            where,
            start,
            allow_outside=allow_outside,
            processes=processes,
            progress=progress,
        )
    say(f"Starting checkpoint in {out}")


@app.command
def train(
    run: Annotated[Path, Parameter(alias="--out")],
    *,
    prepared: Path,
    pairs: Path,
    start: Start = None,
    recipe: RecipeName = None,
    overrides: Overrides = (),
) -> None:
    """Train on PAIRS into RUN; continues where an interrupted run stopped."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.train.stage import train as train_stage

    with stages(("Training", "updates"), STORING) as (progress, storing):
        knobs = read_knobs(recipe, overrides)
        result = train_stage(
            run,
            Prepared(prepared),
            pairs,
            knobs,
            start,
            progress=progress,
            storing=storing,
            logged=lambda row: progress.measured(_loss_and_rate(row)),
            told=progress.say,
        )
    say(f"Best validation loss {result.best_validation_loss:.4f}; weights in {run / 'best'}")


def _loss_and_rate(row: "MetricsRow") -> str:
    """Of an update; the loss is that of true reports, nats per token, as validation has it."""
    loss = "" if row.positive_ce is None else f"loss {row.positive_ce:.3f}, "
    return f"{loss}learning rate {row.learning_rate:.1e}"


@app.command
def features(
    prepared: Path,
    *,
    start: Start = None,
    recipe: RecipeName = None,
    overrides: Overrides = (),
    shard: Annotated[
        str | None,
        Parameter(help="i/n does every n-th volume; under torchrun each process does its share."),
    ] = None,
) -> None:
    """Store what a frozen tower sees of every study of PREPARED, so that later stages find it."""
    from ctscribe.base.workers import launched
    from ctscribe.data.prepare import parse_shard
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.model.features import store_all

    knobs = read_knobs(recipe, overrides)
    number, of = launched()
    if shard is not None:
        number, of = parse_shard(shard)
        number -= 1
    with stage(*STORING) as progress:
        noise = knobs.pairs.strategy == "gauss"
        store_all(
            Prepared(prepared), knobs, start, noise=noise, share=(number, of), progress=progress
        )
    say(f"Features in {prepared / 'features'}")


@app.command
def import_features(
    prepared: Path,
    tables: Path,
    *,
    encoder: Annotated[str, Parameter(help="Its name, which a recipe gives as model.encoder.")],
    weights: Annotated[
        Path | None,
        Parameter(help="The encoder's file of weights, by which it is told from others."),
    ] = None,
) -> None:
    """Take features that another encoder made of every study of PREPARED in, from TABLES.

    TABLES is a folder with tables.jsonl and the files that it names; the features are copied.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.model.encoder_tables import import_tables

    studies = Prepared(prepared)
    with stage("Taking features in", "volumes") as progress:
        found = import_tables(studies, tables, encoder, weights, progress=progress)
    if found.num_not_prepared:
        say(f"{found.num_not_prepared} tables are of volumes that are not prepared, and were left")
    if found.num_without_cells:
        say(
            f"note: of {found.num_without_cells} studies only the planes' places are known, so "
            "evidence for them names slices and has no boxes"
        )
    if not found.num_noise:
        say("note: no noise is among them, so pairs.strategy gauss and the card's noise are not")
    say(
        f"Features of {found.num_studies} studies by {found.encoder} in "
        f"{studies.features(found.encoder.hash)}; set model.encoder={encoder} to read them"
    )


@app.command
def reinforce(
    run: Path,
    out: Path,
    *,
    prepared: Path,
    overrides: Overrides = (),
) -> None:
    """Go on from RUN by what its own drawn reports earn; OUT becomes a run of the same recipe.

    --set may change the sections reinforce, train and generate of RUN's recipe.
    """
    from ctscribe.base.recipe import change_recipe
    from ctscribe.base.runs import recipe_of
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.train.reinforce import reinforce as reinforce_stage
    from ctscribe.write.writer import ReportWriter

    studies, knobs = Prepared(prepared), change_recipe(recipe_of(run), overrides)
    cues = None
    if knobs.model.cues:
        cues = ReportWriter(run).cues(
            studies, [*studies.scans("train"), *studies.scans("validation")]
        )
    with stages(("Reinforcing", "updates")) as (progress,):
        result = reinforce_stage(
            out, run, studies, knobs, cues=cues, progress=progress, told=progress.say
        )
    say(
        f"Best validation F1 {result.best_validation_f1:.3f} after {result.best_step} updates; "
        f"weights in {out / 'best'}"
    )


@app.command
def tune(
    run: Path,
    *,
    prepared: Path,
    least_bleu_4: Annotated[
        float | None, Parameter(help="Floor; by default plain writing's, less 0.01.")
    ] = None,
    least_precision: Annotated[
        float | None, Parameter(help="Floor; by default plain writing's, less 0.01.")
    ] = None,
) -> None:
    """Choose on validation what the run is told and held against; it writes so from then on.

    Under torchrun each process writes its share of every try on its own GPU.
    """
    from ctscribe.base.workers import launched
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.tune import tune as tune_stage
    from ctscribe.write.writer import ReportWriter

    with stage("Tuning", "ways of writing") as progress:
        found = tune_stage(
            ReportWriter(run),
            Prepared(prepared),
            least_bleu_4=least_bleu_4,
            least_precision=least_precision,
            share=launched(),
            progress=progress,
        )
    if launched()[0] > 0:
        return
    chosen = found["generate"]
    against = f"{chosen['contrast']}, weight {chosen['contrast_weight']:g}"
    told = "" if found["cue_threshold"] is None else f", told from {found['cue_threshold']:.2f}"
    say(f"Held against {against}, among {chosen['plausibility']:g} of the likeliest{told}")
    say(f"Look at {run / 'tuned.png'}; kept in {run / 'tuned.json'}")


@app.command
def evidence(
    run: Path,
    *,
    prepared: Path,
    split: Split = "test",
    truth: Annotated[
        Path | None, Parameter(help="A phantom's truth.jsonl: also tell how faithful it is.")
    ] = None,
    limit: Annotated[int | None, Parameter(help="Only the first so many reports.")] = None,
) -> None:
    """Tell which slices each sentence of the run's written reports rests on."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.faithfulness import check_faithfulness
    from ctscribe.show.tables import written_tables
    from ctscribe.show.trust_tables import faithfulness_tables
    from ctscribe.write.find_evidence import find_evidence
    from ctscribe.write.writer import ReportWriter

    writer, studies = ReportWriter(run), Prepared(prepared)
    predictions, target = run / f"predictions_{split}.jsonl", run / f"evidence_{split}.jsonl"
    with stage("Looking for evidence", "reports") as progress:
        rows = find_evidence(writer, studies, predictions, target, limit=limit, progress=progress)
    say(f"Evidence of {len(rows)} reports in {target}")
    if truth is not None:
        with stage("Comparing with the truth") as progress:
            found = check_faithfulness(
                writer, studies, predictions, truth, limit=limit, progress=progress
            )
        write_json(run / f"faithfulness_{split}.json", found)
        print_text(written_tables(faithfulness_tables(found), "markdown"))


@app.command
def calibrate(
    run: Path, *, prepared: Path, split: Split = "test", operating_point: OperatingPoint = None
) -> None:
    """Make the run's probabilities come true: fit on validation, measure on SPLIT."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.measure.calibrate import calibrate as calibrate_stage
    from ctscribe.show.tables import written_tables
    from ctscribe.show.trust_tables import calibration_tables
    from ctscribe.write.writer import ReportWriter

    with stage("Calibrating") as progress:
        writer, studies = ReportWriter(run), Prepared(prepared)
        found = calibrate_stage(writer, studies, split, point=operating_point, progress=progress)
    print_text(written_tables(calibration_tables(found, split), "markdown"))
    if found["patients"]["validation"] == 1:
        say("note: all validation scans are of one patient, so that no sentence gets a confidence")
    say(f"Look at {run / 'reliability.png'}; kept in {run / 'calibration.json'}")


@app.command
def experiment(
    out: Path,
    *,
    prepared: Path,
    start: Start = None,
    recipe: RecipeName = None,
    overrides: Overrides = (),
    parallel: Annotated[int, Parameter(help="Cells trained at the same time.")] = 1,
) -> None:
    """Train, write and score every cell of the grid; OUT gets Tables 1 to 3."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.experiment import run_experiment
    from ctscribe.show.scoreboard import write_scoreboard

    knobs, studies = read_knobs(recipe, overrides), Prepared(prepared)
    with stages(("Experiment", "steps"), STORING) as (progress, storing):
        tables = run_experiment(
            out, studies, knobs, start, parallel=parallel, progress=progress, storing=storing
        )
    show_tables(tables)
    board = write_scoreboard(out, studies, knobs)
    say("Look at: " + ", ".join(str(path) for path in (*tables, board)))


@app.command
def demo(
    *,
    out: Path = Path("runs/demo"),
    recipe: PhantomRecipeName = "tiny",
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Run the whole flow on synthetic chest CT; run it again to continue after an interruption."""
    from ctscribe.demo import run_demo

    result = run_demo(out, read_knobs(recipe, overrides), processes=processes, stage=stage)
    show_tables(result.tables)
    say("Look at:")
    for path in (*result.tables, *result.pages):
        say(f"  {path}")


@app.command
def export(
    run: Path,
    out: Path,
    *,
    what: Annotated[
        Literal["merged", "adapters"], Parameter(help="Whole weights, or the adapters alone.")
    ] = "merged",
    base: Annotated[
        str | None, Parameter(help="Weights below the adapters: a folder or hub id.")
    ] = None,
) -> None:
    """Write the run's best weights for transformers, vLLM and SGLang into OUT."""
    from ctscribe.base.locks import one_writer_of
    from ctscribe.base.runs import recipe_of
    from ctscribe.learn.model.publish import places_depth_itself, publish

    recipe = recipe_of(run)
    with one_writer_of(out):
        merging = publish(run / "best", out, what, recipe, base)
    if merging is not None:
        say(
            f"Cross entropy of {merging.num_reports} stock reports on noise, nats per token: "
            f"{merging.cross_entropy_before:.4f} with the adapters as trained, "
            f"{merging.cross_entropy_after:.4f} merged into {recipe.model.dtype}"
        )
    say(f"Weights in {out}; what a client must know is in {out / 'ctscribe.json'}")
    if recipe.model.positions == "depth" and places_depth_itself(run / "best"):
        say(
            "Only ctscribe itself places slices by depth: vLLM and SGLang would write other "
            "reports with these weights. Train with model.positions index to serve them."
        )
