"""A data set → its problems, and the resources that preparing it takes; reads only headers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, final

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, size_in_words
from ctscribe.base.recipe import ModelConfig, SlicesConfig, VolumeConfig
from ctscribe.base.rows import FEATURE_TABLES, FeatureTableRow, SkippedRow, each_row
from ctscribe.data.engines import local
from ctscribe.data.listing import NO_CHEST, ListedVolume, Reconstructions
from ctscribe.data.manifest import each_source
from ctscribe.data.prepare import BASE_BYTES
from ctscribe.data.worklist import as_data_set
from ctscribe.scan.dicom_series import say_series
from ctscribe.scan.frames import frame_sizes
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.nifti_header import Prefer
from ctscribe.scan.read import read_grid
from ctscribe.scan.resample import plan_resampling

_NUM_EXAMPLES = 3
_READ_S_PER_VOXEL = 4e-9
"""Inflating, checking and finding the lungs: 0.31 s for 512 × 512 × 300 on one core."""
_STORE_S_PER_VOXEL = 12e-9
"""Resampling and writing both stores: 0.41 s for 409 × 409 × 200 on one core."""
_NIFTI_BYTES_PER_VOXEL = 1.2
"""int16 chest CT after igzip level 1."""
_FEATURE_WIDTHS = {
    "tiny": (128, 512),
    "qwen2.5-vl-3b": (2048, 5120),
    "qwen2.5-vl-7b": (3584, 5120),
    "qwen3-vl-4b": (10240, 16384),
    "qwen3.5-4b": (2560, 4096),
}
"""Preset → numbers per visual token after the mergers, and before them, of all levels."""


@final
@dataclass(frozen=True, slots=True)
class Problem:
    """How often a code was found, with examples."""

    count: int
    examples: tuple[str, ...]
    """Up to three: sentences of errors, or for a warning names of volumes with its details."""


@final
@dataclass(frozen=True, slots=True)
class Need:
    """The resources that preparing a data set takes."""

    disk_bytes: int
    """Size of all outputs together."""
    memory_bytes: int
    """Peak of one process, at the largest volume."""
    cpu_hours: float
    """Time on one core; two cores halve it."""


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The state of a data set."""

    num_volumes: int
    """Volumes that can be prepared, as far as headers tell."""
    problems: dict[str, Problem]
    """Code → volumes that cannot be prepared."""
    warnings: dict[str, Problem]
    """Code → volumes that are unusual."""
    need: dict[str, Need]
    """``--keep`` (``slices`` or ``all``) → resources."""
    features_bytes: int
    """Further disk space for a frozen tower's features of all volumes, those of noise excluded, or
    for copies of another encoder's tables; 0 for a tower that learns, or without the tables."""

    @property
    def num_failing(self) -> int:
        """Volumes with a problem, not counting those that the data set's own lists exclude."""
        return sum(found.count for code, found in self.problems.items() if code != NO_CHEST)


def examine(
    source: Path,
    volume: VolumeConfig,
    slices: SlicesConfig,
    model: ModelConfig,
    *,
    tables: Path | None = None,
    prefer: Prefer | None = None,
    series: str | None = None,
    reconstructions: Reconstructions = "one",
    allow_outside: bool = False,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Diagnosis:
    """Examines the tables and headers of a data set, or of an archive's export that is not one yet.

    Damage beyond the headers (a cut file, a wrong checksum, values that are not HU) is found only
    when `prepare` reads the voxels. The arguments are those of `prepare`, and two by which the size
    of stored features is estimated: ``model``, and for another encoder the folder ``tables`` that
    `import_tables` takes.

    Raises:
        CtscribeError: What is wrong with the data set's tables, or an encoder's; ``E_OPTION`` for
            an encoder's tables where ``model`` names no encoder.
    """
    copies = _tables_bytes(tables, model)
    estimate = partial(_estimate, volume=volume, slices=slices, prefer=prefer)
    with as_data_set(source, processes=processes) as (listed, skipped):
        entries: Iterable[ListedVolume | SkippedRow] = ()
        if listed is not None:
            outside = allow_outside or listed != source
            thin_mm = volume.spacing_mm[2]
            entries = each_source(listed, thin_mm, reconstructions, allow_outside=outside)
        headers, problems = _sort_out(chain(entries, skipped), series)
        warnings: dict[str, Problem] = {}
        found = _Estimates()
        outcomes = local.work(estimate, headers, processes, lost=_lost, need_bytes=lambda one: 0)
        for done, outcome in enumerate(outcomes, 1):
            if isinstance(outcome, SkippedRow):
                _add(problems, outcome.code, outcome.reason)
            else:
                found.add(outcome)
                for code, example in outcome.warnings.items():
                    _add(warnings, code, example)
            progress(done, len(headers))
    problems, warnings = (dict(sorted(each.items())) for each in (problems, warnings))
    features = found.visual_tokens * _bytes_per_token(model) if model.encoder is None else copies
    return Diagnosis(found.number, problems, warnings, _needs(found), features)


def _sort_out(
    entries: Iterable[ListedVolume | SkippedRow], series: str | None
) -> tuple[list["_Header"], dict[str, Problem]]:
    """The volumes whose headers are to be read, and the problems of the others."""
    headers: list[_Header] = []
    problems: dict[str, Problem] = {}
    for entry in entries:
        if isinstance(entry, SkippedRow):
            _add(problems, entry.code, entry.reason)
        else:
            which = entry.series or series
            headers.append(_Header(entry.volume_name, str(entry.path), entry.metadata, which))
    return headers, problems


def describe(found: Diagnosis) -> str:
    """A diagnosis as text: codes with counts and examples, then the resources by ``--keep``."""
    lines = [f"{found.num_volumes} volumes can be prepared, as far as headers tell"]
    for title, codes in (("problem", found.problems), ("warning", found.warnings)):
        for code, problem in codes.items():
            lines.append(f"\n{title} {code}, {problem.count} times, for example")
            lines.extend(f"  {example}" for example in problem.examples)
    lines.append("\nprepare needs        disk   memory per process   core hours")
    for keep, need in found.need.items():
        disk, memory = size_in_words(need.disk_bytes), size_in_words(need.memory_bytes)
        hours = f"{need.cpu_hours:.1f}" if need.cpu_hours >= 0.05 else "< 0.1"
        lines.append(f"  --keep {keep:<8}{disk:>9}{memory:>21}{hours:>13}")
    if found.features_bytes:
        lines.append(f"  features besides {size_in_words(found.features_bytes):>9}")
    return "\n".join(lines)


@final
@dataclass(frozen=True, slots=True)
class _Header:
    """What is needed to read a volume's header; its report is not kept in memory."""

    volume_name: str
    path: str
    metadata: VolumeMetadata | None
    series: str | None
    """Which series of a DICOM folder to read."""


@final
@dataclass(frozen=True, slots=True)
class _Estimate:
    """Sizes from which resources are estimated, and warnings, by one volume's header."""

    warnings: dict[str, str]
    """Code → the volume's name, with details for some codes."""
    voxels_in: int
    voxels_out: int
    visual_tokens: int
    frame_bytes: int


def _estimate(
    header: _Header, *, volume: VolumeConfig, slices: SlicesConfig, prefer: Prefer | None
) -> _Estimate | SkippedRow:
    name = header.volume_name
    try:
        grid, notes = read_grid(
            Path(header.path),
            study=name,
            metadata=header.metadata,
            prefer=prefer,
            series=header.series,
            max_tilt_degrees=volume.max_tilt_degrees,
        )
    except CtscribeError as error:
        return SkippedRow.of(name, error)
    width, height, depth = plan_resampling(grid, volume.spacing_mm).shape_xyz
    _, (rows, columns) = frame_sizes(width, height, slices)
    return _Estimate(
        {code: _example(name, code, notes.details) for code in notes.codes},
        grid.hu.size,
        width * height * depth,
        rows * columns // slices.token_side_px**2 * (slices.num_slices // 2),
        rows * columns * 3 * slices.num_slices,
    )


def _lost(header: _Header) -> SkippedRow:
    name = header.volume_name
    error = CtscribeError(
        "E_WORKER",
        f"{name} must have a header that can be read, but it ends the process that reads it",
    )
    return SkippedRow.of(name, error)


def _example(name: str, code: str, details: dict[str, Any]) -> str:
    if code == "W_OTHER_SERIES":
        return f"{name}: {say_series(details['series'])}"
    if code == "W_TILT":
        return f"{name}: {details['tilt_degrees']:g} degrees"
    return name


def _add(found: dict[str, Problem], code: str, example: str) -> None:
    before = found.get(code, Problem(0, ()))
    examples = tuple(sorted((*before.examples, example))[:_NUM_EXAMPLES])
    found[code] = Problem(before.count + 1, examples)


@final
@dataclass(slots=True)
class _Estimates:
    """The sum of all volumes' estimates."""

    number: int = 0
    voxels_in: int = 0
    voxels_out: int = 0
    frame_bytes: int = 0
    visual_tokens: int = 0
    most_voxels_in: int = 0

    def add(self, one: _Estimate) -> None:
        self.number += 1
        self.voxels_in += one.voxels_in
        self.voxels_out += one.voxels_out
        self.frame_bytes += one.frame_bytes
        self.visual_tokens += one.visual_tokens
        self.most_voxels_in = max(self.most_voxels_in, one.voxels_in)


def _needs(total: _Estimates) -> dict[str, Need]:
    memory = round(BASE_BYTES + 2 * total.most_voxels_in)
    read_h = total.voxels_in * _READ_S_PER_VOXEL / 3600
    store_h = total.voxels_out * _STORE_S_PER_VOXEL / 3600
    stores = round(total.voxels_out * (4 + _NIFTI_BYTES_PER_VOXEL))
    return {
        "slices": Need(total.frame_bytes, memory, read_h),
        "all": Need(total.frame_bytes + stores, memory, read_h + store_h),
    }


def _tables_bytes(folder: Path | None, model: ModelConfig) -> int:
    """Size of another encoder's features, which will be copied; 0 if no folder is given."""
    if folder is None:
        return 0
    if model.encoder is None:
        raise CtscribeError(
            "E_OPTION", "--tables must go with model.encoder, but the recipe names no encoder"
        )
    total = 0
    for row in each_row(folder / FEATURE_TABLES, FeatureTableRow):
        path = folder / row.file
        if not path.is_file():
            raise CtscribeError(
                "E_ENCODER", f"{path} must hold features of {row.volume_name}, but is not there"
            )
        total += path.stat().st_size
    return total


def _bytes_per_token(model: ModelConfig) -> int:
    """Size on disk of a frozen tower's features; 0 for a tower that learns."""
    if not model.freeze_tower:
        return 0
    merged, before = _FEATURE_WIDTHS[model.preset]
    return (merged if model.freeze_merger else before) * (4 if model.dtype == "float32" else 2)
