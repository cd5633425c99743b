"""Volumes with reports → what training reads: stores, slice cache and a row per study.

Of each scan one reconstruction is used (`data.listing`), or all. A volume whose outputs
exist for the same request and the same file is not done again, so that an interrupted run
continues; a ledger (`data.ledger`) knows them at a glance. What failed is tried again.

A shard does every n-th volume and writes its tables to ``shards/<i>-of-<n>/``. Any number may run
at once, on machines that share the folder; a run without a shard then finds their volumes done and
writes the tables of all.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    first_difference,
    object_in,
    read_json,
    write_json,
)
from ctscribe.base.locks import many_writers, one_writer
from ctscribe.base.recipe import SlicesConfig, SplitsConfig, VolumeConfig
from ctscribe.base.rows import ReportedRow, SkippedRow, StudyRow, write_rows
from ctscribe.base.runs import provenance
from ctscribe.data.engines import local
from ctscribe.data.engines.engine import Engine
from ctscribe.data.ledger import Ledger, open_ledger
from ctscribe.data.listing import NO_CHEST, ListedVolume, Reconstructions
from ctscribe.data.manifest import list_source
from ctscribe.data.prepare_volume import (
    FORMAT,
    Keep,
    Preparation,
    outputs_of,
    prepare_into,
    request_of,
)
from ctscribe.data.prepared import STUDIES, split_of
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.nifti_header import Prefer

Shard = tuple[int, int]
"""Which part, from 1, and of how many."""
WHOLE: Shard = (1, 1)
USUAL_SPLITS = SplitsConfig()
BASE_BYTES = 110e6
"""Resident memory of a worker before its first volume."""
_INFLATED = 3
"""Most that chest CT expands from its file; 2.2 is usual."""
_LEDGER = "ledger.sqlite"
_REPEATED = set(StudyRow.model_fields) - set(ReportedRow.model_fields) - {"split"}
"""Fields of a volume's record that its row repeats."""


@final
@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What came of a data set; volumes are counted."""

    num_prepared: int
    num_reused: int
    """Of the prepared ones, those that an earlier run had prepared."""
    num_skipped: int
    """Those that should have been prepared but could not."""
    num_excluded: int
    """Those that the data set's own lists exclude."""
    skipped_by_code: dict[str, int]
    examples: dict[str, str]
    """One failure of each code, in a sentence."""
    warnings_by_code: dict[str, int]
    num_without_report: int
    """Of the prepared ones, those that can be drafted only."""


def prepare(
    source: Path,
    out: Path,
    volume: VolumeConfig,
    slices: SlicesConfig,
    splits: SplitsConfig = USUAL_SPLITS,
    *,
    keep: Keep = "all",
    prefer: Prefer | None = None,
    series: str | None = None,
    reconstructions: Reconstructions = "one",
    allow_outside: bool = False,
    shard: Shard = WHOLE,
    engine: Engine = local.work,
    processes: int | None = 1,
    progress: ProgressCallback = lambda done, total: None,
    failed: Callable[[str], None] = lambda code: None,
) -> PrepareSummary:
    """Prepares a data set; one bad volume becomes a row in ``skipped.jsonl``.

    Args:
        source: A CT-RATE tree, v1 or v2, or the manifest of own scans.
        keep: See `Preparation`, also for ``prefer`` and ``series``; a manifest's cell goes before
            the latter.
        allow_outside: See `each_in_manifest`.
        processes: Volumes worked on at once; None leaves it to the engine.
        progress: Called first with the volumes that earlier runs have done.
        failed: Called with the code of each volume that fails, before its progress.

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when `out` was prepared otherwise, ``E_WRITE``,
            ``E_BUSY``, ``E_ENGINE``, or what is wrong with the data set's tables.
    """
    tables = out if shard == WHOLE else out / "shards" / f"{shard[0]}-of-{shard[1]}"
    how = Preparation(volume, slices, keep, prefer, series)
    with _locked_ledger(tables, out) as ledger:
        listed, skipped = list_source(
            source, volume.spacing_mm[2], reconstructions, allow_outside=allow_outside
        )
        manifest = open_prepared(out, tables, how, splits)
        listed = listed[shard[0] - 1 :: shard[1]]
        skipped = skipped if shard[0] == 1 else []  # told by the first shard
        records, tasks = _split_off_done(ledger, listed, out, how)
        outcomes = engine(do_task, tasks, processes, lost=_lost, need_bytes=_need_bytes)
        entered = _enter(outcomes, ledger, out, keep, failed)
        num_reused = _take(entered, records, skipped, len(listed), progress)
        studies = _study_rows(listed, records, splits)
        return _write_tables(tables, manifest, studies, skipped, num_reused)


def parse_shard(text: str) -> Shard:
    """Reads ``2/8`` as the second of eight shards.

    Raises:
        CtscribeError: ``E_SHARD``.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise CtscribeError(
            "E_SHARD", f"a shard must be written i/n with i from 1 to n, but is {text[:20]!r}"
        )
    return int(match[1]), int(match[2])


@contextmanager
def _locked_ledger(tables: Path, out: Path) -> Iterator[Ledger]:
    """Locks the folder of the tables and opens their ledger.

    Shards may run beside each other, but not beside the whole, which takes over their ledgers.
    """
    is_whole = tables == out
    with nullcontext() if is_whole else many_writers(out), one_writer(tables):
        shards = sorted(out.glob(f"shards/*/{_LEDGER}")) if is_whole else []
        with open_ledger(tables / _LEDGER, out, shards) as ledger:
            yield ledger


def open_prepared(
    out: Path, tables: Path, how: Preparation, splits: SplitsConfig
) -> dict[str, Any]:
    """Writes ``prepare.json``, unless the folder was prepared with other settings.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``.
    """
    path = out / "prepare.json"
    asked = {"format": FORMAT, **how.sections(), "splits": splits.model_dump(mode="json")}
    if path.exists():
        # folders of 0.1 do not say their splits, which every reader decided for itself
        before = {"splits": asked["splits"], **object_in(read_json(path), "asked")}
        if difference := first_difference(before, asked):
            raise CtscribeError(
                "E_RUN_EXISTS",
                f"{out} must be new or hold the same preparation, but differs in {difference}",
            )
    manifest = {"stage": "prepare", "asked": asked, **provenance()}
    if tables == out or not path.exists():
        write_json(path, manifest)
    return manifest


@final
@dataclass(frozen=True, slots=True)
class VolumeTask:
    """One volume to prepare, without its report."""

    name: str
    path: Path
    metadata: VolumeMetadata | None
    out: Path
    how: Preparation
    source_bytes: int
    """Of its files together."""


Outcome = tuple[str, dict[str, Any] | SkippedRow, bool]
"""A volume's name, its record or why there is none, and whether an earlier run had made it."""


def _split_off_done(
    ledger: Ledger, listed: list[ListedVolume], out: Path, how: Preparation
) -> tuple[dict[str, dict[str, Any]], list[VolumeTask]]:
    """Finds the records of volumes that are done, by name; makes tasks of all others."""
    records, tasks = {}, []
    for one in listed:
        name, num_bytes, record = one.volume_name, 0, None
        own = replace(how, series=one.series or how.series)
        with suppress(CtscribeError):  # what cannot be read fails again where it is prepared
            request = request_of(name, one.path, one.metadata, own)
            num_bytes = request["source_bytes"]
            record = ledger.find(name, request, outputs_of(out, name, how.keep))
        if record is None:
            tasks.append(VolumeTask(name, one.path, one.metadata, out, own, num_bytes))
        else:
            records[name] = record
    return records, tasks


def _take(
    entered: Iterator[Outcome],
    records: dict[str, dict[str, Any]],
    skipped: list[SkippedRow],
    num_listed: int,
    progress: ProgressCallback,
) -> int:
    """Adds outcomes to records and skipped as they come; returns how many records were there."""
    num_reused = len(records)
    progress(num_reused, num_listed)
    for done, (name, outcome, reused) in enumerate(entered, num_reused + 1):
        if isinstance(outcome, SkippedRow):
            skipped.append(outcome)
        else:
            records[name] = outcome
            num_reused += reused
        progress(done, num_listed)
    return num_reused


def do_task(task: VolumeTask) -> Outcome:
    """Prepares one volume, in any process; only what stops every volume is raised.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    try:
        record, reused = prepare_into(task.out, task.name, task.path, task.metadata, task.how)
    except CtscribeError as error:
        if error.code == "E_WRITE":
            raise
        return _failed(task, error)
    except MemoryError:
        told = f"{task.name} must fit into memory, but does not"
        return _failed(task, CtscribeError("E_MEMORY", told))
    return task.name, record, reused


def _lost(task: VolumeTask) -> Outcome:
    """The outcome of a volume whose worker died twice."""
    error = CtscribeError(
        "E_WORKER",
        f"{task.name} must be read to its end, but the worker that read it was ended, also when "
        "it did nothing else, perhaps for want of memory",
    )
    return _failed(task, error)


def _failed(task: VolumeTask, error: CtscribeError) -> Outcome:
    return task.name, SkippedRow.of(task.name, error), False


def _need_bytes(task: VolumeTask) -> int:
    """Estimates a worker's memory by the size of the volume's files."""
    return round(BASE_BYTES + _INFLATED * task.source_bytes)


def _enter(
    outcomes: Iterable[Outcome],
    ledger: Ledger,
    out: Path,
    keep: Keep,
    failed: Callable[[str], None],
) -> Iterator[Outcome]:
    """Enters outcomes into the ledger as they come, and passes them on."""
    for name, outcome, reused in outcomes:
        if isinstance(outcome, SkippedRow):
            ledger.failed(name, outcome.code, outcome.reason)
            failed(outcome.code)
        else:
            ledger.done(name, outcome, outputs_of(out, name, keep))
        yield name, outcome, reused


def _study_rows(
    listed: Sequence[ListedVolume], records: Mapping[str, dict[str, Any]], splits: SplitsConfig
) -> list[StudyRow]:
    """The volumes that are prepared, as listed, with what their records say of the frames."""
    rows = []
    for one in listed:
        if record := records.get(one.volume_name):
            reported = one.model_dump(include=set(ReportedRow.model_fields))
            split = one.split or split_of(one.patient_id, one.source_split, splits)
            told = {key: record[key] for key in _REPEATED & record.keys()}
            rows.append(StudyRow(**reported, split=split, **told))
    return rows


def _write_tables(
    tables: Path,
    manifest: dict[str, Any],
    studies: list[StudyRow],
    skipped: list[SkippedRow],
    num_reused: int,
) -> PrepareSummary:
    skipped = sorted(skipped, key=lambda row: (row.volume_name, row.code))
    failures = Counter(row.code for row in skipped if row.code != NO_CHEST)
    examples = {row.code: row.reason for row in reversed(skipped) if row.code in failures}
    warnings = Counter(code for study in studies for code in study.warnings)
    summary = PrepareSummary(
        num_prepared=len(studies),
        num_reused=num_reused,
        num_skipped=failures.total(),
        num_excluded=len(skipped) - failures.total(),
        skipped_by_code=dict(sorted(failures.items())),
        examples=dict(sorted(examples.items())),
        warnings_by_code=dict(sorted(warnings.items())),
        num_without_report=sum(not study.has_report for study in studies),
    )
    write_rows(tables / STUDIES, studies)
    write_rows(tables / "skipped.jsonl", skipped)
    counts = {key: value for key, value in asdict(summary).items() if key != "num_reused"}
    write_json(tables / "prepare.json", {**manifest, "result": counts})
    return summary
