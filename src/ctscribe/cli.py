"""The command line: parse, call one stage, print. Nothing else prints."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ctscribe import RESEARCH_USE, __version__
from ctscribe.config import Recipe, read_recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, write_json

app = App(
    name="ctscribe",
    version=__version__,
    help=f"Chest-CT report writers that look at the scan. {RESEARCH_USE}",
    default_parameter=Parameter(negative=""),
)

RecipeName = Annotated[str, Parameter(name="--recipe", help="A YAML file or a shipped name.")]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="section.key=value; may be repeated.", negative=""),
]
StartingWeights = Annotated[
    Path | None,
    Parameter(name="--weights", help="Folder to start from: a warm-up's, or Qwen2.5-VL's."),
]
Processes = Annotated[int, Parameter(help="Worker processes.")]
Prefer = Annotated[
    Literal["sform", "qform"] | None,
    Parameter(help="Which affine to believe where a NIfTI file has two that disagree."),
]
Reconstructions = Annotated[
    Literal["one", "all"], Parameter(help="One reconstruction per scan, or all of them.")
]
Split = Literal["train", "validation", "test"]
CORES = os.cpu_count() or 1


@app.command
def phantom(
    out: Path,
    *,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Write a CT-RATE-shaped data set of synthetic chest CT with known truth to OUT."""
    from ctscribe.phantom.dataset import write_dataset

    config = read_recipe(recipe, overrides).phantom
    with _stage("Drawing patients") as progress:
        write_dataset(out, config, processes=processes, progress=progress)
    _say(f"Data set in {out}")


@app.command
def prepare(
    source: Path,
    out: Path,
    *,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    keep: Literal["all", "slices"] = "all",
    prefer: Prefer = None,
    reconstructions: Reconstructions = "one",
    shard: Annotated[
        str, Parameter(help="i/n does every n-th volume; run once more without it at the end.")
    ] = "1/1",
    allow_failures: bool = False,
    processes: Processes = CORES,
) -> None:
    """Turn the volumes of SOURCE into Hounsfield units on one grid, and into frames, in OUT."""
    from ctscribe.prepare import parse_shard
    from ctscribe.prepare import prepare as prepare_stage

    knobs = read_recipe(recipe, overrides)
    with _stage("Preparing volumes") as progress:
        summary = prepare_stage(
            source,
            out,
            knobs.volume,
            knobs.slices,
            keep=keep,
            prefer=prefer,
            reconstructions=reconstructions,
            shard=parse_shard(shard),
            processes=processes,
            progress=progress,
        )
    _say(f"{summary.num_prepared} volumes prepared, {summary.num_skipped} skipped, in {out}")
    if summary.num_skipped and not allow_failures:
        raise CtscribeError(
            "E_SKIPPED",
            f"every volume should be prepared, but {summary.num_skipped} were skipped; "
            f"read {out / 'skipped.jsonl'}, or pass --allow-failures",
        )


@app.command
def doctor(
    source: Path,
    *,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    prefer: Prefer = None,
    reconstructions: Reconstructions = "one",
    processes: Processes = CORES,
) -> None:
    """Tell what is wrong with SOURCE by its tables and headers, and what preparing it takes."""
    from ctscribe.doctor import describe, examine

    knobs = read_recipe(recipe, overrides)
    with _stage("Reading headers") as progress:
        found = examine(
            source,
            knobs.volume,
            knobs.slices,
            prefer=prefer,
            reconstructions=reconstructions,
            processes=processes,
            progress=progress,
        )
    _print_text(describe(found))
    if found.num_failing:
        raise CtscribeError(
            "E_UNHEALTHY",
            f"every volume should be ready, but {found.num_failing} have problems; mend them, "
            "or run prepare with --allow-failures, which skips them",
        )


@app.command
def pairs(
    prepared: Path, out: Path, *, recipe: RecipeName = "tiny", overrides: Overrides = ()
) -> None:
    """Write each training study's positive and negative to OUT/pairs.jsonl, with an audit."""
    from ctscribe.pairs.audit import write_audit
    from ctscribe.pairs.build import build_training_pairs

    rows = build_training_pairs(prepared, out, read_recipe(recipe, overrides).pairs)
    warnings = write_audit(prepared, out, rows)
    _say(f"{len(rows)} rows in {out / 'pairs.jsonl'}")
    for warning in warnings:
        _say(f"note: {warning}")


@app.command
def warm_up(
    out: Path,
    *,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Teach a vision tower where findings are; OUT becomes a starting checkpoint."""
    from ctscribe.warm_up import warm_up as warm_up_stage

    with _stage("Warming up the tower") as progress:
        warm_up_stage(out, read_recipe(recipe, overrides), processes=processes, progress=progress)
    _say(f"Starting checkpoint in {out}")


@app.command
def train(
    run: Path,
    *,
    prepared: Path,
    pairs: Path,
    start: StartingWeights = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Train on PAIRS into RUN; continues where an interrupted run stopped."""
    from ctscribe.train.stage import train as train_stage

    with _stage("Training") as progress:
        result = train_stage(
            run, prepared, pairs, read_recipe(recipe, overrides), start, progress=progress
        )
    _say(f"Best validation loss {result.best_validation_loss:.4f}; weights in {run / 'best'}")


@app.command
def generate(run: Path, *, prepared: Path, split: Split = "test", out: Path | None = None) -> None:
    """Write one report per scan of SPLIT with the run's best weights, at temperature 0."""
    from ctscribe.generate import generate as generate_stage
    from ctscribe.run import recipe_of

    target = out or run / f"predictions_{split}.jsonl"
    with _stage("Writing reports") as progress:
        rows = generate_stage(run, prepared, recipe_of(run), split, target, progress=progress)
    _say(f"{len(rows)} reports in {target}")


@app.command
def evaluate(
    predictions: Path,
    *,
    prepared: Path,
    split: Split = "test",
    out: Path | None = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
) -> None:
    """Score PREDICTIONS against the reports of SPLIT, beside blind baselines."""
    from ctscribe.evaluate.scores import evaluate_predictions
    from ctscribe.tables import scores_table

    knobs = read_recipe(recipe, overrides)
    scores = evaluate_predictions(predictions, prepared, split, knobs.pairs, knobs.evaluate)
    target = out or predictions.with_name("scores.json")
    write_json(target, scores)
    _print_text(scores_table(scores))
    _say(f"Scores in {target}")


@app.command
def card(
    run: Path,
    *,
    prepared: Path,
    split: Split = "test",
    min_dependence: Annotated[
        float | None, Parameter(help="Fail when the lower bound of dependence is below.")
    ] = None,
    out: Path | None = None,
) -> None:
    """Tell whether the run's model looks: show it noise, air, other patients' scans, and score."""
    from ctscribe.card.make import make_card
    from ctscribe.card.score import require_dependence
    from ctscribe.card.write import headline
    from ctscribe.run import recipe_of

    target = out or run / f"card_{split}"
    with _stage("Measuring image dependence") as progress:
        found = make_card(run, prepared, recipe_of(run), split, target, progress=progress)
    _say(f"{headline(found)} Read {target / 'card.md'}")
    if min_dependence is not None:
        require_dependence(found, min_dependence)


@app.command
def experiment(
    out: Path,
    *,
    prepared: Path,
    start: StartingWeights = None,
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    parallel: Annotated[int, Parameter(help="Cells trained at the same time.")] = 1,
) -> None:
    """Train, write and score every cell of the grid; OUT gets Tables 1 and 2."""
    from ctscribe.board.write import write_scoreboard
    from ctscribe.experiment import run_experiment

    knobs = read_recipe(recipe, overrides)
    with _stage("Experiment") as progress:
        tables = run_experiment(
            out,
            prepared,
            knobs,
            start,
            parallel=parallel,
            progress=progress,
        )
    _show_tables(tables)
    board = write_scoreboard(out, prepared, knobs)
    _say("Look at: " + ", ".join(str(path) for path in (*tables, board)))


@app.command
def report(
    source: Path,
    *,
    run: Path,
    out: Path = Path("report"),
    name: Annotated[str | None, Parameter(help="What the report calls the study.")] = None,
) -> None:
    """Write a draft report for one DICOM series folder or NIfTI file, as text, JSON and HTML."""
    from ctscribe.export.patient import report_patient

    paths = report_patient(source, run, out, name=name)
    _print_text(paths["text"].read_text(encoding="utf-8"))
    _say("Written: " + ", ".join(str(path) for path in paths.values()))


@app.command
def demo(
    *,
    out: Path = Path("runs/demo"),
    recipe: RecipeName = "tiny",
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Run the whole flow on synthetic chest CT; run it again to continue after an interruption."""
    from ctscribe.demo import run_demo

    result = run_demo(out, read_recipe(recipe, overrides), processes=processes, stage=_stage)
    _show_tables(result.tables)
    _say("Look at:")
    for path in (*result.tables, *result.pages):
        _say(f"  {path}")


@app.command
def label(reports: Path, *, out: Path) -> None:
    """Write CT-RATE's 18 labels for each report of the CSV file REPORTS to OUT."""
    from ctscribe.reports.label_files import label_csv

    _say(f"{label_csv(reports, out)} reports labelled in {out}")


@app.command
def recipe(name: str = "tiny", *, overrides: Overrides = ()) -> None:
    """Print every knob of a recipe as it would be used."""
    import yaml

    resolved: Recipe = read_recipe(name, overrides)
    _print_text(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))


@contextmanager
def _stage(title: str) -> Iterator[ProgressCallback]:
    """A progress bar on a terminal; one line per tenth elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{title} …", highlight=False)
        printed = -1

        def tell(done: int, total: int) -> None:
            nonlocal printed
            tenth = 10 * done // max(total, 1)
            if tenth > printed:
                printed = tenth
                console.print(f"  {title}: {done}/{total}", highlight=False)

        yield tell
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_tables(paths: Sequence[Path]) -> None:
    """Each table as it stands in its CSV file, fitted to the terminal."""
    for path in paths:
        header, *rows = csv.reader(path.with_suffix(".csv").open(encoding="utf-8", newline=""))
        metrics = [i for i, name in enumerate(header) if i + 1 < len(header) and i % 3 == 1]
        shown = Table(title=path.stem, title_justify="left", padding=(0, 1))
        for column in (0, *metrics):
            shown.add_column(header[column], justify="right" if column else "left")
        for row in rows:
            cells = [_with_interval(*row[i : i + 3]) for i in metrics]
            shown.add_row(escape(row[0]), *cells)
        Console(width=None if sys.stdout.isatty() else 120).print(shown)


def _with_interval(value: str, low: str, high: str) -> str:
    try:
        return f"{float(value):.3f}\n[dim]{float(low):.3f}–{float(high):.3f}[/dim]"
    except ValueError:
        return escape(value)


def _say(sentence: str) -> None:
    Console(stderr=True).print(escape(sentence), highlight=False, soft_wrap=True)


def _print_text(text: str) -> None:
    print(text)


def main() -> None:
    """Entry point: a bad input or request ends in one sentence and status 1."""
    try:
        app()
    except CtscribeError as error:
        print(f"ctscribe: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("ctscribe: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
