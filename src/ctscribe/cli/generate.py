"""The command that writes the reports of a split: here, on several GPUs, or by a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Split
from ctscribe.base.workers import launched
from ctscribe.cli.console import say, stage
from ctscribe.cli.options import (
    NO_SERVER,
    Cues,
    OperatingPoint,
    Overrides,
    ServerOptions,
    app,
)

if TYPE_CHECKING:
    from ctscribe.base.rows import PredictionRow
    from ctscribe.data.prepared import Prepared
    from ctscribe.write.cue_table import CueTable
    from ctscribe.write.writer import ReportWriter


@app.command
def generate(
    run: Path,
    *,
    prepared: Path,
    split: Split = "test",
    generator: Annotated[
        Literal["model", "template"],
        Parameter(help="model: the run's own words; template: stock sentences of its labels."),
    ] = "model",
    out: Path | None = None,
    cues: Cues = None,
    operating_point: OperatingPoint = None,
    server: ServerOptions = NO_SERVER,
    overrides: Overrides = (),
) -> None:
    """Write one report per scan of SPLIT with the run's best weights, at temperature 0.

    It writes as `tune` found best, where that was run; --set generate.key=value asks otherwise.
    Under torchrun each process writes its share on its own GPU.
    """
    _require_use(cues, operating_point, generator, server)
    from ctscribe.base.rows import unfinished
    from ctscribe.data.prepared import Prepared
    from ctscribe.write.generate import generate_template
    from ctscribe.write.writer import ReportWriter

    writer, studies = ReportWriter(run).with_overrides(overrides), Prepared(prepared)
    if generator == "template":
        target = out or run / f"predictions_{split}_template.jsonl"
        rows = generate_template(writer, studies, split, target)
    else:
        target = out or run / f"predictions_{split}.jsonl"
        table = _read_cues(cues, operating_point, studies)
        rows = _write(writer, studies, split, target, table, server)
    num_scans = len(studies.scans(split, reported=False))
    if len(rows) < num_scans:
        say(f"{len(rows)} of {num_scans} reports are there; who ends last makes {target}")
        return
    say(f"{len(rows)} reports in {target}")
    if unknown := sum(row.finished is None for row in rows):
        say(f"note: of {unknown} reports the server does not say whether they are whole")
    if (cut := unfinished(rows)).count:
        say(
            f"note: {cut}; raise generate.max_new_tokens, "
            f"{writer.generate.max_new_tokens} here, and write into another file"
        )


def _read_cues(
    path: Path | None, operating_point: str | None, studies: "Prepared"
) -> "CueTable | None":
    from ctscribe.write.cue_table import read_cue_table

    table = None if path is None else read_cue_table(path)
    if table is not None and operating_point is not None:
        table = table.at(studies.scans("validation"), operating_point)
    return table


def _write(
    writer: "ReportWriter",
    studies: "Prepared",
    split: Split,
    target: Path,
    table: "CueTable | None",
    server: ServerOptions,
) -> "list[PredictionRow]":
    from ctscribe.write.generate import generate as generate_here
    from ctscribe.write.served import generate_served

    if server.engine == "local":
        with stage("Writing reports", "reports") as progress:
            return generate_here(
                writer, studies, split, target, cues=table, share=launched(), progress=progress
            )
    if server.engine == "ray":
        from ctscribe.write.clustered import generate_clustered

        with stage("Writing reports", "reports") as progress:
            return generate_clustered(writer, studies, split, target, cues=table, progress=progress)
    served = server.served()
    if writer.recipe.model.positions == "depth" and server.send_as == "images":
        say("note: the run places slices by depth in mm, and images are sent without it")
    if served.endpoint.is_remote:
        say("note: frames of every scan leave this machine; no name or date goes with them")
    with stage("Writing reports", "reports") as progress:
        return generate_served(
            writer, studies, split, target, served, cues=table, progress=progress
        )


def _require_use(
    cues: Path | None,
    operating_point: str | None,
    generator: Literal["model", "template"],
    server: ServerOptions,
) -> None:
    """Refuses options of `generate` that would do nothing, and processes that would do the same."""
    if operating_point is not None and cues is None:
        raise CtscribeError(
            "E_OPTION",
            "the operating point of `generate` must be that of a table given by --cues, but none "
            "is; `ctscribe calibrate` moves that of the run's own queries",
        )
    if generator == "template" and (cues is not None or server != NO_SERVER):
        option = "--engine and what goes with it" if cues is None else "--cues"
        raise CtscribeError(
            "E_OPTION",
            f"{option} must go with the model's own words, but the template is asked for",
        )
    server.require_use()
    num_processes = launched()[1]
    if num_processes > 1 and (generator == "template" or server.engine != "local"):
        raise CtscribeError(
            "E_PROCESSES",
            "only the model itself may write in several processes, but the template, a cluster or "
            f"a server is asked for in {num_processes}",
        )
