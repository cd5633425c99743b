"""The command that drafts scans, one or many."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from cyclopts import Parameter

from ctscribe.base.errors import CtscribeError
from ctscribe.cli.console import print_text, say, stage, stage_with_failures
from ctscribe.cli.options import (
    CORES,
    NO_DOCUMENTS,
    AllowOutside,
    Cues,
    Documents,
    Overrides,
    Prefer,
    Series,
    WithVolume,
    app,
)

if TYPE_CHECKING:
    from ctscribe.base.rows import SkippedRow
    from ctscribe.data.listing import ListedVolume
    from ctscribe.show.hospital_outputs import HospitalOutputs
    from ctscribe.write.cue_table import CueTable
    from ctscribe.write.writer import ReportWriter


@app.command
def report(
    source: Path,
    *more: Path,
    run: Path,
    out: Path = Path("report"),
    name: Annotated[str | None, Parameter(help="What the report calls the study.")] = None,
    prefer: Prefer = None,
    series: Series = None,
    cues: Cues = None,
    allow_outside: AllowOutside = False,
    allow_failures: bool = False,
    with_volume: WithVolume = True,
    documents: Documents = NO_DOCUMENTS,
    overrides: Overrides = (),
) -> None:
    """Write a draft report for one scan, as text, JSON and HTML, or for many, with an index.

    SOURCE is a DICOM folder, a zip archive or a NIfTI file; or many scans: a list of them, a
    prepared folder, an export of several studies, or several of all these as MORE. With --dicom-sr
    and --fhir drafts are also written as documents for a hospital's archive and record.
    """
    from ctscribe.show.report import save_report
    from ctscribe.write.cue_table import read_cue_table
    from ctscribe.write.writer import ReportWriter

    outputs = documents.outputs()
    table = None if cues is None else read_cue_table(cues)
    sources = [source, *more]
    if (more or not (name or series)) and are_many(sources):
        writer = ReportWriter(run).with_overrides(overrides)
        how = HowToDraft(prefer, table, outputs, with_volume, allow_outside, allow_failures)
        draft_all(writer, sources, out, how)
        return
    images = outputs.read_source(source, series)
    writer = ReportWriter(run).with_overrides(overrides)
    cue = None if table is None else table.of(name or source.name)
    draft = writer.report(source, name, cue, prefer=prefer, series=series)
    paths = save_report(draft, out, with_volume=with_volume)
    written = [*paths.values(), *outputs.save(draft, images, out)]
    print_text(paths["txt"].read_text(encoding="utf-8"))
    say("Written: " + ", ".join(map(str, written)))
    if outputs.dicom_sr and draft.prepared is None:
        say("note: no DICOM SR was written, because the scan could not be shown")


def is_prepared(source: Path) -> bool:
    """Whether a folder is what `prepare` wrote."""
    return (source / "prepare.json").is_file()


def are_many(sources: Sequence[Path]) -> bool:
    """Whether these are more than one scan: several, a data set, or files of several studies."""
    from ctscribe.data.manifest import is_data_set
    from ctscribe.data.pseudonyms import Pseudonyms
    from ctscribe.data.survey import survey
    from ctscribe.scan.dicom_sources import is_zip

    first = sources[0]
    if len(sources) > 1 or is_prepared(first) or is_data_set(first):
        return True
    if not first.is_dir() and not (first.is_file() and is_zip(first)):
        return False
    found = survey([first], Pseudonyms(secrets.token_bytes(32)), processes=CORES)
    return len(found.packed) + len(found.nifti) > 1


@final
@dataclass(frozen=True)
class HowToDraft:
    """What is asked of all drafts."""

    prefer: Prefer
    cues: "CueTable | None"
    outputs: "HospitalOutputs"
    with_volume: bool
    allow_outside: bool
    allow_failures: bool


def draft_all(writer: "ReportWriter", sources: Sequence[Path], out: Path, how: HowToDraft) -> None:
    """Drafts what lies at the sources into OUT and says what came of it.

    Files, folders and zip archives that are no data set are listed first, as by `worklist`, in
    ``OUT/scans.csv``.

    Raises:
        CtscribeError: ``E_SKIPPED`` in the end where a scan has no draft, or what stops all.
    """
    from ctscribe.data.prepared import Prepared
    from ctscribe.show.drafts import ScanToDraft, draft_many, listed_scans, prepared_scans

    scans: list[ScanToDraft | SkippedRow]
    if is_prepared(sources[0]) and len(sources) == 1:
        scans = [*prepared_scans(writer, Prepared(sources[0]))]
    else:
        entries = _list(writer, sources, out, how.allow_outside)
        scans = [*listed_scans(writer, entries, prefer=how.prefer)]
    with stage_with_failures("Writing drafts", "drafts") as (progress, failed):
        rows = draft_many(
            writer,
            scans,
            out,
            how.outputs,
            cues=how.cues,
            with_volume=how.with_volume,
            progress=progress,
            failed=failed,
        )
    codes = Counter(row.code for row in rows if row.code is not None)
    num_written = len(rows) - codes.total()
    say(f"Drafts written: {num_written}, in {out / 'index.html'} and {out / 'drafts.jsonl'}")
    if codes and not how.allow_failures:
        told = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
        raise CtscribeError(
            "E_SKIPPED",
            f"every scan should have a draft, but {codes.total()} in {out / 'drafts.jsonl'} have "
            f"none: {told}",
        )


def _list(
    writer: "ReportWriter", sources: Sequence[Path], out: Path, allow_outside: bool
) -> "list[ListedVolume | SkippedRow]":
    from ctscribe.data.manifest import each_source, is_data_set
    from ctscribe.data.worklist import read_skipped, write_worklist

    thin_mm = writer.recipe.volume.spacing_mm[2]
    if len(sources) == 1 and is_data_set(sources[0]):
        return [*each_source(sources[0], thin_mm, allow_outside=allow_outside)]
    with stage("Reading headers") as progress:
        found = write_worklist(
            sources, out / "scans.csv", replaces=True, processes=CORES, progress=progress
        )
    say(f"Which files each name stands for is in {found.private_dir}; keep it where the scans are")
    skipped = read_skipped(found)
    if not found.num_scans:
        return [*skipped]
    return [*each_source(found.scans_path, thin_mm, allow_outside=True), *skipped]
