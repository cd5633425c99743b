"""The slice cache: uint8 frames on disk, memory-mapped, checked on every read."""

from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib

from ctscribe.errors import CtscribeError
from ctscribe.files import atomic_write, read_json, write_json
from ctscribe.types import Frames


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
    """Stores frames, then their record with the frames' CRC-32 added as ``frames_crc32``."""
    frames = np.ascontiguousarray(frames)
    with atomic_write(frames_path(prepared_dir, volume_name)) as file:
        np.lib.format.write_array(file, frames, allow_pickle=False)
    crc = isal_zlib.crc32(frames.data)
    write_json(record_path(prepared_dir, volume_name), {**record, "frames_crc32": crc})


def read_frames(prepared_dir: Path, volume_name: str) -> Frames:
    """Maps a volume's frames into memory after checking their CRC-32.

    Raises:
        CtscribeError: ``E_MISSING`` when the volume is not prepared, ``E_CACHE`` when its frames
            are not what was written.
    """
    record = read_json(record_path(prepared_dir, volume_name))
    path = frames_path(prepared_dir, volume_name)
    try:
        frames: Frames = np.load(path, mmap_mode="r", allow_pickle=False)
        intact = isal_zlib.crc32(frames.data) == record.get("frames_crc32")
    except (OSError, ValueError, EOFError):
        intact = False
    if not intact:
        raise CtscribeError(
            "E_CACHE",
            f"{volume_name} must have the frames that were stored, but they are missing or "
            "damaged; run prepare again",
        )
    return frames
