"""Drafting many scans: what `ctscribe report` does with more than one."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from ctscribe.base.errors import CtscribeError
from ctscribe.cli.console import say, stage, stage_with_failures
from ctscribe.cli.options import CORES

if TYPE_CHECKING:
    from ctscribe.base.rows import SkippedRow
    from ctscribe.data.listing import ListedVolume
    from ctscribe.scan.nifti_header import Prefer
    from ctscribe.show.hospital_outputs import HospitalOutputs
    from ctscribe.write.cue_table import CueTable
    from ctscribe.write.writer import ReportWriter


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

    prefer: "Prefer | None"
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
    say(f"{len(rows) - codes.total()} drafts in {out / 'index.html'} and {out / 'drafts.jsonl'}")
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
