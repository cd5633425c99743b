"""The slice cache: uint8 frames on disk, memory-mapped, checked on every read."""

from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.files import read_json, write_json
from ctscribe.types import Frames
from ctscribe.volume.npy import map_npy, npy_writer


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
