"""Commands about data: drawing phantoms, examining, preparing, pairing; and a recipe's knobs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.cli.console import print_json, print_text, say, stage, stage_with_failures
from ctscribe.cli.options import (
    CORES,
    AllowOutside,
    AsJson,
    EngineName,
    EngineProcesses,
    Overrides,
    PhantomRecipeName,
    Prefer,
    Processes,
    RecipeName,
    Reconstructions,
    Series,
    app,
    read_knobs,
)

if TYPE_CHECKING:
    from ctscribe.data.prepare import PrepareSummary
    from ctscribe.data.worklist import Worklist

SCHEMA_LINE = "# yaml-language-server: $schema=recipe.schema.json"
"""By it editors complete a recipe and mark its faults."""


@app.command
def phantom(
    out: Path,
    *,
    recipe: PhantomRecipeName = "tiny",
    overrides: Overrides = (),
    processes: Processes = CORES,
) -> None:
    """Write a CT-RATE-shaped data set of synthetic chest CT with known truth to OUT."""
    from ctscribe.phantom.dataset import write_dataset

    config = read_knobs(recipe, overrides).phantom
    with stage("Drawing patients", "patients") as progress:
        write_dataset(out, config, processes=processes, progress=progress)
    say(f"Data set in {out}")


@app.command
def worklist(
    source: Path,
    /,
    *more: Path,
    out: Path = Path("scans.csv"),
    reports: Annotated[
        Path | None, Parameter(help="CSV of reports by accession number, to be joined.")
    ] = None,
    key: Annotated[
        Path | None, Parameter(help="Secret key of the new names, such as an earlier list's.")
    ] = None,
    processes: Processes = CORES,
) -> None:
    """List the scans of an export of DICOM files in a manifest, under new names.

    SOURCE and MORE are files, folders and zip archives; a last one that ends in .csv is OUT.
    """
    from ctscribe.data.worklist import write_worklist

    sources = [source, *more]
    if more and more[-1].suffix.lower() == ".csv":
        out = sources.pop()
    with stage("Reading headers") as progress:
        found = write_worklist(
            sources, out, key=key, reports=reports, processes=processes, progress=progress
        )
    _tell_worklist(found)


def _tell_worklist(found: "Worklist") -> None:
    """What came of an export, and what must be known of the files beside the list."""
    if found.is_new_key:
        say(
            f"A secret key was made, {found.key_path}: with it the same patient gets the same name "
            "again, and without it nobody can tell who is who. Keep it where the scans are"
        )
    say(f"Which files each name stands for is in {found.private_dir}; it stays there, too")
    for code, count in found.skipped_by_code.items():
        say(f"skipped {count} with {code}; see {found.skipped_path}")
    if found.num_without_report is not None:
        told = f"{found.num_without_report} of {found.num_scans} scans have no report"
        say(f"{told} by their accession number")
    if found.leads_outside:
        say("note: scans lie outside the folder of the list; read it with --allow-outside")
    say(
        f"{found.num_scans} scans of {found.num_patients} patients in {found.scans_path}, out of "
        f"{found.num_files} files, {found.num_others} of them no images"
    )


@app.command
def prepare(
    source: Path,
    out: Path,
    *,
    recipe: RecipeName = None,
    overrides: Overrides = (),
    keep: Literal["all", "slices"] = "all",
    prefer: Prefer = None,
    series: Series = None,
    reconstructions: Reconstructions = "one",
    allow_outside: AllowOutside = False,
    shard: Annotated[
        str, Parameter(help="i/n does every n-th volume; run once more without it at the end.")
    ] = "1/1",
    engine: EngineName = "local",
    processes: EngineProcesses = None,
    allow_failures: bool = False,
) -> None:
    """Turn the volumes of SOURCE into Hounsfield units on one grid, and into frames, in OUT."""
    from ctscribe.data.engines.engine import choose_engine
    from ctscribe.data.prepare import parse_shard
    from ctscribe.data.prepare import prepare as prepare_stage

    knobs = read_knobs(recipe, overrides)
    with stage_with_failures("Preparing volumes", "volumes") as (progress, failed):
        summary = prepare_stage(
            source,
            out,
            knobs.volume,
            knobs.slices,
            knobs.splits,
            keep=keep,
            prefer=prefer,
            series=series,
            reconstructions=reconstructions,
            allow_outside=allow_outside,
            shard=parse_shard(shard),
            engine=choose_engine(engine, out / f"jobs-{shard.replace('/', '-of-')}"),
            processes=processes,
            progress=progress,
            failed=failed,
        )
    _tell(summary, out)
    if summary.num_skipped and not allow_failures:
        raise CtscribeError(
            "E_SKIPPED",
            f"every volume should be prepared, but {summary.num_skipped} are in "
            f"{out / 'skipped.jsonl'}",
        )


def _tell(summary: "PrepareSummary", out: Path) -> None:
    for code, count in summary.skipped_by_code.items():
        say(f"skipped {count} with {code}, for example: {summary.examples[code]}")
    if summary.num_without_report:
        say(f"{summary.num_without_report} of them have no report and can only be drafted")
    say(
        f"{summary.num_prepared} volumes prepared ({summary.num_reused} of them earlier), "
        f"{summary.num_skipped} skipped, in {out}"
    )


@app.command
def doctor(
    source: Path,
    *,
    recipe: RecipeName = None,
    overrides: Overrides = (),
    tables: Annotated[
        Path | None, Parameter(help="Features that model.encoder made, whose copies take disk.")
    ] = None,
    prefer: Prefer = None,
    series: Series = None,
    reconstructions: Reconstructions = "one",
    allow_outside: AllowOutside = False,
    processes: Processes = CORES,
    as_json: AsJson = False,
) -> None:
    """Tell what is wrong with SOURCE by its tables and headers, and what preparing it takes."""
    from ctscribe.data.doctor import describe, examine

    knobs = read_knobs(recipe, overrides)
    with stage("Reading headers") as progress:
        found = examine(
            source,
            knobs.volume,
            knobs.slices,
            knobs.model,
            tables=tables,
            prefer=prefer,
            series=series,
            reconstructions=reconstructions,
            allow_outside=allow_outside,
            processes=processes,
            progress=progress,
        )
    if as_json:
        print_json(asdict(found))
    else:
        print_text(describe(found))
    if knobs.model.encoder is not None and tables is None:
        say(
            f"note: the features of {knobs.model.encoder} take as much disk as its tables, which "
            "--tables counts"
        )
    if found.num_failing:
        raise CtscribeError(
            "E_UNHEALTHY", f"every volume should be ready, but {found.num_failing} have problems"
        )


@app.command
def pairs(
    prepared: Path, out: Path, *, recipe: RecipeName = None, overrides: Overrides = ()
) -> None:
    """Write each training study's positive and negative to OUT/pairs.jsonl, with an audit."""
    from ctscribe.data.prepared import Prepared
    from ctscribe.learn.pairs.audit import write_audit
    from ctscribe.learn.pairs.build import build_training_pairs

    knobs, studies = read_knobs(recipe, overrides), Prepared(prepared)
    studies.require(knobs)
    num_rows = build_training_pairs(studies, out, knobs.pairs)
    warnings = write_audit(studies, out)
    say(f"{num_rows} rows in {out / 'pairs.jsonl'}")
    for warning in warnings:
        say(f"note: {warning}")


@app.command
def recipe(
    name: str | None = None,
    *,
    overrides: Overrides = (),
    as_json: AsJson = False,
    schema: Annotated[
        bool, Parameter(help="Print the JSON schema of recipes instead, for editors.")
    ] = False,
) -> None:
    """Print every knob of the recipe NAME, a YAML file or a shipped name, as it would be used.

    Its first line tells editors to check it by recipe.schema.json beside it, as --schema prints.
    """
    import yaml

    from ctscribe.base.recipe import recipe_schema

    if schema:
        if name is not None or overrides:
            raise CtscribeError(
                "E_OPTION", "--schema is that of all recipes, but one of them is asked for"
            )
        print_json(recipe_schema())
        return
    knobs = read_knobs(name, overrides).model_dump(mode="json")
    if as_json:
        print_json(knobs)
    else:
        print_text(SCHEMA_LINE)
        print_text(yaml.safe_dump(knobs, sort_keys=False))
