"""One volume → frames and stores, in memory or in a prepared folder, made once."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, sha256_of_json, write_json
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.base.types import Frames
from ctscribe.scan.frames import PreparedVolume, frames_of_lungs
from ctscribe.scan.intensity import Intensity
from ctscribe.scan.metadata import VolumeMetadata
from ctscribe.scan.nifti_header import Prefer
from ctscribe.scan.read import fingerprint, read_volume, sha256_of_source
from ctscribe.scan.stores import GRID, check_stores, map_npy, npy_writer, store_paths, write_stores


def frames_path(prepared_dir: Path, volume_name: str) -> Path:
    """Where a volume's frames lie: ``slices/<name>.npy``."""
    return prepared_dir / "slices" / f"{stem(volume_name)}.npy"


def record_path(prepared_dir: Path, volume_name: str) -> Path:
    """Where a volume's record lies; written last, it says that the volume is complete."""
    return prepared_dir / "slices" / f"{stem(volume_name)}.json"


def stem(volume_name: str) -> str:
    """A volume's name without ``.nii`` or ``.nii.gz``."""
    return volume_name.removesuffix(".gz").removesuffix(".nii")


def write_frames(
    prepared_dir: Path, volume_name: str, frames: Frames, record: dict[str, Any]
) -> None:
    """Stores frames, then their record with the CRC-32 of their file as ``frames_crc32``."""
    with npy_writer(frames_path(prepared_dir, volume_name), frames.shape, "|u1") as writer:
        writer.write(np.ascontiguousarray(frames))
    complete = {**record, "frames_crc32": writer.crc32}
    write_json(record_path(prepared_dir, volume_name), complete)


def read_frames(prepared_dir: Path, volume_name: str) -> Frames:
    """Maps a volume's frames into memory after checking their CRC-32.

    Raises:
        CtscribeError: ``E_MISSING`` when the volume is not prepared, ``E_CACHE`` when its frames
            are not what was written.
    """
    record = read_json(record_path(prepared_dir, volume_name))
    path = frames_path(prepared_dir, volume_name)
    return map_npy(path, record.get("frames_crc32"), volume_name)


Keep = Literal["all", "slices"]
FORMAT = 2
"""Raised whenever the same request would give other bytes, so that old files are redone."""


def prepare_volume(
    path: Path,
    *,
    study: str,
    spacing_mm: tuple[float, float, float] = (0.75, 0.75, 1.5),
    intensity: Intensity = "auto",
    antialias: bool = False,
    num_slices: int = 10,
    windows: Literal["single", "three"] = "single",
    frame_size_px: tuple[int, int] | None = None,
    token_budget: int | None = None,
    metadata: VolumeMetadata | None = None,
    prefer: Prefer | None = None,
    max_tilt_degrees: float = 30.0,
) -> PreparedVolume:
    """Prepares one NIfTI file or DICOM series in memory.

    Args:
        path: See `read_volume`.
        study: Name for errors.
        spacing_mm: Of the recipe's grid, (x, y, z).
        intensity: See `read_volume`.
        antialias: See `plan_resampling`.
        num_slices: Frames wanted.
        windows: Which grey scales the three channels show.
        frame_size_px: See `make_frames`.
        token_budget: See `coarse_size`.
        metadata: CT-RATE's row, where there is one.
        prefer: See `read_volume`.
        max_tilt_degrees: See `read_volume`.

    Raises:
        CtscribeError: What is wrong with the volume, in one sentence.
    """
    read = partial(read_volume, path, study=study, metadata=metadata, prefer=prefer)
    source, notes = read(intensity=intensity, max_tilt_degrees=max_tilt_degrees)
    volume = VolumeConfig(spacing_mm=spacing_mm, antialias=antialias)
    slices = SlicesConfig(
        num_slices=num_slices,
        windows=windows,
        frame_size_px=frame_size_px,
        token_budget=token_budget,
    )
    shown = frames_of_lungs(source, volume, slices)
    warnings = tuple(sorted(notes.codes | set(shown.warnings)))
    return replace(shown, warnings=warnings, source_details=notes.details)


def request_of(
    name: str, path: Path, metadata: VolumeMetadata | None, options: dict[str, Any]
) -> dict[str, Any]:
    """What a volume's record must repeat to answer for this source and these options.

    Raises:
        CtscribeError: ``E_READ``.
    """
    cells = asdict(metadata) if metadata else None
    return {"request": sha256_of_json([FORMAT, options, cells]), **fingerprint(path, name)}


def outputs_of(out: Path, name: str, keep: Keep) -> list[Path]:
    """All files that a prepared volume consists of."""
    stores = store_paths(out, stem(name)) if keep == "all" else []
    return [frames_path(out, name), record_path(out, name), *stores]


def prepare_into(
    out: Path,
    name: str,
    path: Path,
    metadata: VolumeMetadata | None,
    options: dict[str, Any],
    keep: Keep,
) -> tuple[dict[str, Any], bool]:
    """Prepares a volume into a folder, unless an earlier run has done just that.

    Args:
        out: The prepared folder.
        name: The volume's.
        path: See `prepare_volume`.
        metadata: See `prepare_volume`.
        options: Further arguments of `prepare_volume`.
        keep: all writes both stores and the slice cache, slices only the latter.

    Returns:
        The volume's record, and whether it is an earlier run's.

    Raises:
        CtscribeError: What is wrong with the volume, or ``E_WRITE``.
    """
    request = request_of(name, path, metadata, options)
    before = _complete_record(out, name, request, keep)
    if before is not None:
        return before, True
    prepared = prepare_volume(path, study=name, metadata=metadata, **options)
    record = {
        "volume_name": name,
        **request,
        "source_sha256": sha256_of_source(path),
        **_described(prepared),
        "grid": GRID,
        "antialias": bool(options.get("antialias", False)),
        "warnings": prepared.warnings,
    }
    if keep == "all":
        write_stores(out, stem(name), prepared.resampling, record)
    write_frames(out, name, prepared.frames, record)
    return record, False


def _described(prepared: PreparedVolume) -> dict[str, Any]:
    """How the source was read, and where the frames lie."""
    return {
        "source_details": prepared.source_details,
        "spacing_mm": prepared.resampling.spacing_mm,
        "shape_xyz": prepared.resampling.shape_xyz,
        "slice_indices": prepared.slice_indices,
        "position_mm": prepared.position_mm,
        "frame_to_ras": prepared.frame_to_ras.tolist(),
    }


def _complete_record(
    out: Path, name: str, request: dict[str, Any], keep: Keep
) -> dict[str, Any] | None:
    """The record of a volume whose files all pass their checks."""
    try:
        record: dict[str, Any] = read_json(record_path(out, name))
        if any(record.get(key) != value for key, value in request.items()):
            return None
        read_frames(out, name)
        if keep == "all":
            check_stores(out, stem(name))
    except CtscribeError:
        return None
    return record
