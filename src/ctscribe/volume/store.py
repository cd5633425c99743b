"""The two stores of resampled volumes.

``preprocessed/<name>.nii.gz``: int16 HU with geometry, for people and other tools.
``preprocessed_npy/<name>.npy``: float32 [z, x, y] in [−1, 1] (Eq. 3), as the paper's, with a
JSON sidecar that says what the numbers are.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip

from ctscribe.files import atomic_write, read_json, write_json
from ctscribe.types import Affine, NormalisedZxy
from ctscribe.volume.intensity import normalise
from ctscribe.volume.npy import map_npy, npy_writer
from ctscribe.volume.resample import Resampling

_LEVEL = 1
"""igzip's fastest that still compresses CT about 2:1."""
GRID = "half-pixel (align_corners=False): voxel edges coincide with the source's"


def write_stores(out: Path, stem: str, resampling: Resampling, record: dict[str, Any]) -> None:
    """Writes both stores in one pass over the slices, so that no volume is held in memory.

    Args:
        out: The prepared folder.
        stem: Name without suffix.
        resampling: The planned volume in RAS orientation.
        record: What else the sidecar holds.
    """
    width, height, depth = resampling.shape_xyz
    shape_zxy = (depth, width, height)
    with (
        atomic_write(out / "preprocessed" / f"{stem}.nii.gz") as nifti,
        npy_writer(out / "preprocessed_npy" / f"{stem}.npy", shape_zxy, "<f4") as npy,
        igzip.IGzipFile(filename="", fileobj=nifti, mode="wb", compresslevel=_LEVEL, mtime=0) as gz,
    ):
        gz.write(nifti_header(resampling.shape_xyz, resampling.affine))
        for plane in resampling.slices(range(depth)):
            gz.write(np.rint(np.clip(plane, -32768, 32767)).astype("<i2").data)
            npy.write(np.ascontiguousarray(normalise(plane).T))
    sidecar = {
        **record,
        "axes": ["z (superior)", "x (right)", "y (anterior)"],
        "shape_zxy": list(shape_zxy),
        "values": "Hounsfield units clipped to [-1000, 1000], divided by 1000",
        "grid": GRID,
        "affine_xyz_to_ras_mm": resampling.affine.tolist(),
        "npy_crc32": npy.crc32,
    }
    write_json(out / "preprocessed_npy" / f"{stem}.json", sidecar)


def read_normalised(out: Path, stem: str) -> NormalisedZxy:
    """Maps ``preprocessed_npy/<stem>.npy`` into memory after checking its CRC-32.

    Raises:
        CtscribeError: ``E_MISSING`` without a sidecar, ``E_CACHE`` when the array is not what was
            written.
    """
    sidecar = read_json(out / "preprocessed_npy" / f"{stem}.json")
    return map_npy(out / "preprocessed_npy" / f"{stem}.npy", sidecar.get("npy_crc32"), stem)


def stores_exist(out: Path, stem: str) -> bool:
    """Whether all files of both stores are there."""
    names = (f"preprocessed/{stem}.nii.gz", f"preprocessed_npy/{stem}.npy")
    return all((out / name).is_file() for name in (*names, f"preprocessed_npy/{stem}.json"))


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
