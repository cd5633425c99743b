"""Volumes with reports → a prepared folder: stores, frames, and a row per study.

One reconstruction of each scan is used (`data.listing`), or all. A volume whose outputs exist for
the same request and the same source is not done again, so that an interrupted run continues; a
ledger (`data.ledger`) finds these quickly. Failed volumes are tried again.

A shard does every n-th volume and writes its tables to ``shards/<i>-of-<n>/``. Shards may run at
the same time, on machines that share the folder; a run without a shard then reuses their volumes
and writes the tables of all.
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
"""Number of this part, from 1, and of how many."""
WHOLE: Shard = (1, 1)
USUAL_SPLITS = SplitsConfig()
BASE_BYTES = 110e6
"""Resident memory of a worker before its first volume."""
_INFLATED = 3
"""Upper bound of chest CT's compression ratio in its file; 2.2 is usual."""
_LEDGER = "ledger.sqlite"
_FROM_RECORD = set(StudyRow.model_fields) - set(ReportedRow.model_fields) - {"split"}
"""Fields of `StudyRow` that are copied from the volume's record."""


@final
@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """The result of preparing a data set, in numbers of volumes."""

    num_prepared: int
    num_reused: int
    """Prepared volumes that an earlier run had prepared."""
    num_skipped: int
    """Volumes that should have been prepared but could not."""
    num_excluded: int
    """Volumes that the data set's own lists exclude."""
    skipped_by_code: dict[str, int]
    examples: dict[str, str]
    """One failure of each code, in a sentence."""
    warnings_by_code: dict[str, int]
    num_without_report: int
    """Prepared volumes without a report, which can only be drafted."""


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
        keep: See `Preparation`, also for ``prefer`` and ``series``; a manifest's cell overrides
            the latter.
        allow_outside: See `each_in_manifest`.
        processes: Volumes worked on at once; None leaves it to the engine.
        progress: Called first with the number of volumes that earlier runs have done.
        failed: Called with the code of each volume that fails, before its progress.

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` was prepared with other settings, ``E_WRITE``,
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
        skipped = skipped if shard[0] == 1 else []  # only the first shard lists them
        records, tasks = _split_off_done(ledger, listed, out, how)
        outcomes = engine(do_task, tasks, processes, lost=_lost, need_bytes=_need_bytes)
        noted = _noted(outcomes, ledger, out, keep, failed)
        num_reused = _collect(noted, records, skipped, len(listed), progress)
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

    Shards may run at the same time, but not together with a run of the whole data set, which takes
    over their ledgers.
    """
    is_whole = tables == out
    with nullcontext() if is_whole else many_writers(out), one_writer(tables):
        shards = sorted(out.glob(f"shards/*/{_LEDGER}")) if is_whole else []
        with open_ledger(tables / _LEDGER, out, shards) as ledger:
            yield ledger


def open_prepared(
    out: Path, tables: Path, how: Preparation, splits: SplitsConfig
) -> dict[str, Any]:
    """Writes and returns ``prepare.json``, unless the folder was prepared with other settings.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``.
    """
    path = out / "prepare.json"
    asked = {"format": FORMAT, **how.sections(), "splits": splits.model_dump(mode="json")}
    if path.exists():
        # version 0.1 did not record the splits in a folder; each reader computed them
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
    """Size of its files together."""


Outcome = tuple[str, dict[str, Any] | SkippedRow, bool]
"""A volume's name, its record or the reason why it failed, and whether an earlier run did it."""


def _split_off_done(
    ledger: Ledger, listed: list[ListedVolume], out: Path, how: Preparation
) -> tuple[dict[str, dict[str, Any]], list[VolumeTask]]:
    """Returns the records of volumes that are done, by name, and tasks for all others."""
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


def _collect(
    outcomes: Iterable[Outcome],
    records: dict[str, dict[str, Any]],
    skipped: list[SkippedRow],
    num_listed: int,
    progress: ProgressCallback,
) -> int:
    """Adds outcomes to ``records`` and ``skipped``; returns how many records earlier runs made."""
    num_reused = len(records)
    progress(num_reused, num_listed)
    for done, (name, outcome, reused) in enumerate(outcomes, num_reused + 1):
        if isinstance(outcome, SkippedRow):
            skipped.append(outcome)
        else:
            records[name] = outcome
            num_reused += reused
        progress(done, num_listed)
    return num_reused


def do_task(task: VolumeTask) -> Outcome:
    """Prepares one volume, in any process; its failure is returned, not raised.

    Raises:
        CtscribeError: ``E_WRITE``, which would affect every volume.
    """
    try:
        record, reused = prepare_into(task.out, task.name, task.path, task.metadata, task.how)
    except CtscribeError as error:
        if error.code == "E_WRITE":
            raise
        return _failed(task, error)
    except MemoryError:
        fault = f"{task.name} must fit into memory, but does not"
        return _failed(task, CtscribeError("E_MEMORY", fault))
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
    """Estimates a worker's memory from the size of the volume's files."""
    return round(BASE_BYTES + _INFLATED * task.source_bytes)


def _noted(
    outcomes: Iterable[Outcome],
    ledger: Ledger,
    out: Path,
    keep: Keep,
    failed: Callable[[str], None],
) -> Iterator[Outcome]:
    """Notes each outcome in the ledger and passes it on."""
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
    """Rows of the prepared volumes, in the order listed."""
    rows = []
    for one in listed:
        if record := records.get(one.volume_name):
            reported = one.model_dump(include=set(ReportedRow.model_fields))
            split = one.split or split_of(one.patient_id, one.source_split, splits)
            prepared = {key: record[key] for key in _FROM_RECORD & record.keys()}
            rows.append(StudyRow(**reported, split=split, **prepared))
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
