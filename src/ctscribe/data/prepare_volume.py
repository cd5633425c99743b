"""Prepares one volume, in memory or into a prepared folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, sha256_of_json, write_json
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepared import frames_path, read_frames, record_path, stem
from ctscribe.scan.frames import PreparedVolume, frames_of_lungs
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.nifti_header import Prefer
from ctscribe.scan.read import fingerprint, read_volume, sha256_of_source
from ctscribe.scan.stores import GRID, check_stores, npy_writer, store_paths, write_stores
from ctscribe.scan.types import Frames

Keep = Literal["all", "slices"]
FORMAT = 2
"""Increased when the same request gives other bytes than before, so that files are redone."""


@final
@dataclass(frozen=True, slots=True)
class Preparation:
    """How each volume of a folder is prepared."""

    volume: VolumeConfig
    slices: SlicesConfig
    keep: Keep = "all"
    """all: frames and both stores; slices: only frames."""
    prefer: Prefer | None = None
    """Which affine to believe where sform and qform disagree; None refuses the volume."""
    series: str | None = None
    """Number or SeriesInstanceUID of the DICOM series to read; None chooses by rule."""

    def sections(self) -> dict[str, Any]:
        """Both sections as JSON; see `SlicesConfig.as_asked`."""
        return {"volume": self.volume.model_dump(mode="json"), "slices": self.slices.as_asked()}


def prepare_volume(
    path: Path,
    volume: VolumeConfig,
    slices: SlicesConfig,
    *,
    study: str,
    metadata: VolumeMetadata | None = None,
    prefer: Prefer | None = None,
    series: str | None = None,
) -> PreparedVolume:
    """Prepares one NIfTI file or DICOM series in memory.

    Raises:
        CtscribeError: What is wrong with the volume, naming it ``study``; see `read_volume`.
    """
    source, notes = read_volume(
        path,
        study=study,
        metadata=metadata,
        prefer=prefer,
        series=series,
        intensity=volume.intensity,
        max_tilt_degrees=volume.max_tilt_degrees,
    )
    prepared = frames_of_lungs(source, volume, slices)
    warnings = tuple(sorted(notes.codes | set(prepared.warnings)))
    return replace(prepared, warnings=warnings, source_details=notes.details)


def prepare_into(
    out: Path, name: str, path: Path, metadata: VolumeMetadata | None, how: Preparation
) -> tuple[dict[str, Any], bool]:
    """Prepares a volume into the folder ``out``, unless an earlier run has done so.

    Returns:
        The volume's record, and whether an earlier run made it.

    Raises:
        CtscribeError: What is wrong with the volume, or ``E_WRITE``.
    """
    request = request_of(name, path, metadata, how)
    before = _complete_record(out, name, request, how.keep)
    if before is not None:
        return before, True
    prepared = prepare_volume(
        path,
        how.volume,
        how.slices,
        study=name,
        metadata=metadata,
        prefer=how.prefer,
        series=how.series,
    )
    record = {
        "volume_name": name,
        **request,
        "source_sha256": sha256_of_source(path),
        "source_details": prepared.source_details,
        "spacing_mm": prepared.resampling.spacing_mm,
        "shape_xyz": prepared.resampling.shape_xyz,
        "slice_indices": prepared.slice_indices,
        "position_mm": prepared.position_mm,
        "frame_to_ras": prepared.frame_to_ras.tolist(),
        "reach_z": prepared.reach_z,
        "grid": GRID,
        "antialias": how.volume.antialias,
        "warnings": prepared.warnings,
    }
    if how.keep == "all":
        write_stores(out, stem(name), prepared.resampling, record)
    write_frames(out, name, prepared.frames, record)
    return record, False


def _complete_record(
    out: Path, name: str, request: dict[str, Any], keep: Keep
) -> dict[str, Any] | None:
    """The record of a volume for this request whose files all pass their checks, else None."""
    try:
        record: dict[str, Any] = read_json(record_path(out, name))
        if not request.items() <= record.items():
            return None
        read_frames(out, name)
        if keep == "all":
            check_stores(out, stem(name))
    except CtscribeError:
        return None
    return record


def request_of(
    name: str, path: Path, metadata: VolumeMetadata | None, how: Preparation
) -> dict[str, Any]:
    """The fields of a record that identify the source and the settings it was made with.

    Raises:
        CtscribeError: ``E_READ``.
    """
    sections = how.sections()
    options = {**sections["volume"], **sections["slices"]}
    if how.prefer:
        options["prefer"] = how.prefer
    if how.series:
        options["series"] = how.series
    cells = asdict(metadata) if metadata else None
    return {"request": sha256_of_json([FORMAT, options, cells]), **fingerprint(path, name)}


def outputs_of(out: Path, name: str, keep: Keep) -> list[Path]:
    """All files of a prepared volume."""
    stores = store_paths(out, stem(name)) if keep == "all" else []
    return [frames_path(out, name), record_path(out, name), *stores]


def write_frames(out: Path, name: str, frames: Frames, record: dict[str, Any]) -> None:
    """Writes frames, then their record, in which ``frames_crc32`` is their file's CRC-32."""
    with npy_writer(frames_path(out, name), frames.shape, "|u1") as writer:
        writer.write(np.ascontiguousarray(frames))
    write_json(record_path(out, name), {**record, "frames_crc32": writer.crc32})
