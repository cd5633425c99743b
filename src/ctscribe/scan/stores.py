"""Resampled volumes on disk, and .npy files whose CRC-32 is checked before they are used.

``preprocessed/<name>.nii.gz``: int16 HU with geometry, for people and other tools.
``preprocessed_npy/<name>.npy``: float32 [z, x, y] in [−1, 1] (Eq. 3), as the paper's, with a
JSON sidecar that says what the numbers are.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, final

import nibabel as nib
import numpy as np
from isal import isal_zlib

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import atomic_write, read_json, write_json
from ctscribe.scan.intensity import normalise
from ctscribe.scan.resample import Resampling
from ctscribe.scan.types import Affine, NormalisedZxy

_LEVEL = 1
"""The fastest level of igzip that still compresses CT about 2:1."""
_GZIP = 31
"""zlib's ``wbits`` for gzip, here without a name and a time in its header."""
GRID = "trilinear, half-pixel (align_corners=False): voxel edges coincide with the source's"


def write_stores(out: Path, stem: str, resampling: Resampling, record: dict[str, Any]) -> None:
    """Writes both stores in one pass over the slices, so that no volume is held in memory.

    Args:
        out: The prepared folder.
        stem: Name without suffix.
        resampling: The planned volume in RAS orientation.
        record: Further content of the sidecar.
    """
    nifti_path, npy_path, sidecar_path = store_paths(out, stem)
    width, height, depth = resampling.shape_xyz
    shape_zxy = (depth, width, height)
    stored = np.empty((height, width), dtype="<i2")
    normalised = np.empty((width, height), dtype="<f4")
    deflate = isal_zlib.compressobj(_LEVEL, wbits=_GZIP)
    with (
        checked_writer(nifti_path) as nifti,
        npy_writer(npy_path, shape_zxy, "<f4") as npy,
    ):
        nifti.write(deflate.compress(nifti_header(resampling.shape_xyz, resampling.affine)))
        for plane in resampling.slices(range(depth)):
            np.clip(plane, -32768, 32767, out=plane)
            npy.write(normalise(plane.T, out=normalised))
            np.rint(plane, out=plane)
            np.copyto(stored, plane, casting="unsafe")
            nifti.write(deflate.compress(stored.data))
        nifti.write(deflate.flush())
    sidecar = {
        **record,
        "axes": ["z (superior)", "x (right)", "y (anterior)"],
        "shape_zxy": list(shape_zxy),
        "values": "Hounsfield units clipped to [-1000, 1000], divided by 1000",
        "grid": GRID,
        "affine_xyz_to_ras_mm": resampling.affine.tolist(),
        "npy_crc32": npy.crc32,
        "nifti_crc32": nifti.crc32,
    }
    write_json(sidecar_path, sidecar)


def read_normalised(out: Path, stem: str) -> NormalisedZxy:
    """Maps ``preprocessed_npy/<stem>.npy`` into memory after checking its CRC-32.

    Raises:
        CtscribeError: ``E_MISSING`` without a sidecar, ``E_CACHE`` when the array is not what was
            written.
    """
    _, npy_path, sidecar_path = store_paths(out, stem)
    return map_npy(npy_path, read_json(sidecar_path).get("npy_crc32"), stem)


def check_stores(out: Path, stem: str) -> None:
    """Checks the CRC-32 of both stores.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_CACHE`` when a file is not what was written.
    """
    nifti_path, npy_path, sidecar_path = store_paths(out, stem)
    sidecar = read_json(sidecar_path)
    check_file(npy_path, sidecar.get("npy_crc32"), stem)
    check_file(nifti_path, sidecar.get("nifti_crc32"), stem)


def store_paths(out: Path, stem: str) -> tuple[Path, Path, Path]:
    """The NIfTI file, the .npy file and its JSON sidecar."""
    npy_path = out / "preprocessed_npy" / f"{stem}.npy"
    return out / "preprocessed" / f"{stem}.nii.gz", npy_path, npy_path.with_name(f"{stem}.json")


def nifti_header(shape_xyz: tuple[int, int, int], affine: Affine) -> bytes:
    """A NIfTI-1 header for int16 HU, sform and qform set, up to the first voxel."""
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape_xyz)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + b"\0\0\0\0"


@final
class CheckedWriter:
    """Writes a file in parts and computes its CRC-32."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc32 = 0

    def write(self, part: np.ndarray | bytes) -> None:
        """Appends bytes or the elements of a contiguous array."""
        content = part if isinstance(part, bytes) else part.data
        self.crc32 = isal_zlib.crc32(content, self.crc32)
        self._file.write(content)


@contextmanager
def checked_writer(path: Path) -> Iterator[CheckedWriter]:
    """Opens a file for writing, atomically as `atomic_write` does."""
    with atomic_write(path) as file:
        yield CheckedWriter(file)


@contextmanager
def npy_writer(path: Path, shape: Iterable[int], dtype: str) -> Iterator[CheckedWriter]:
    """Opens a .npy file of this shape and type; its elements must then be written in C order."""
    header = BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, described)
    with checked_writer(path) as writer:
        writer.write(header.getvalue())
        yield writer


def check_file(path: Path, crc32: object, name: str) -> None:
    """Compares a file's CRC-32 with the one in its sidecar; `name` is the study's, for the error.

    Raises:
        CtscribeError: ``E_CACHE`` when the file is missing or has changed since.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        intact = isal_zlib.crc32(content.data) == crc32
    except (OSError, ValueError):
        intact = False
    if not intact:
        raise CtscribeError(
            "E_CACHE", f"{name} must have the files that were stored, but one is missing or damaged"
        )


def map_npy(path: Path, crc32: object, name: str) -> np.ndarray:
    """Maps a .npy file into memory, read-only, after `check_file`."""
    check_file(path, crc32, name)
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
