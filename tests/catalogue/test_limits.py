"""Rows 10 and 30: what bombs and very large volumes may cost."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from isal import igzip

from ctscribe.data.prepare import BASE_BYTES
from ctscribe.scan.stores import nifti_header
from tests.scans import SPACING_MM, chest

LARGE = os.environ.get("CTSCRIBE_LARGE") == "1"
"""``CTSCRIBE_LARGE=1`` reads the largest volumes that are known."""
SCRIPT = """
import sys, time
from pathlib import Path
from ctscribe.base.errors import CtscribeError
from ctscribe.scan.read import read_volume
def peak_bytes():
    # not ru_maxrss, in which a process inherits the size of the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
begun, before = time.process_time(), peak_bytes()
try:
    volume, _ = read_volume(Path(sys.argv[1]), study="s")
    told = "x".join(str(size) for size in volume.shape_xyz)
except CtscribeError as error:
    told = error.code
print(told, time.process_time() - begun, peak_bytes() - before, peak_bytes())
"""


def measured(path: Path) -> tuple[str, float, int, int]:
    """In a process of its own: what came of it, CPU s, bytes gained, bytes in all."""
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    told, seconds, gained, peak = answer.stdout.split()
    return told, float(seconds), int(gained), int(peak)


def test_a_bomb_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    """1.6 GB of zeros in 1.6 MB, as the header says."""
    path = tmp_path / "bomb.nii.gz"
    header = nifti_header((1000, 1000, 800), np.diag([0.5, 0.5, 0.5, 1.0]))
    path.write_bytes(gzip.compress(header) + gzip.compress(bytes(8 << 20)) * 200)
    assert path.stat().st_size < 2 << 20
    told, seconds, gained, _ = measured(path)
    assert told == "E_BOMB"
    assert seconds < 1
    assert gained < 32 << 20


def write_large(path: Path, shape: tuple[int, int, int]) -> None:
    """A chest of any size, slice by slice, no two neighbours alike."""
    width, height, depth = shape
    made = chest((width, height, 8), (0.7, 0.7, SPACING_MM[2]))
    with igzip.open(path, "wb", compresslevel=0) as file:
        file.write(nifti_header(shape, made.affine))
        for z in range(depth):
            file.write(np.ascontiguousarray(made.hu[:, :, 1 + z % 6].T).tobytes())


SIZES = [(512, 512, 1500), (1024, 1024, 800)] if LARGE else [(512, 512, 200)]


@pytest.mark.parametrize("shape", SIZES)
def test_large_volumes_take_the_stated_memory(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Two bytes per voxel above what a process has from the start, as `doctor` says."""
    path = tmp_path / "large.nii.gz"
    write_large(path, shape)
    told, _, _, peak = measured(path)
    assert told == "x".join(str(size) for size in shape)
    assert peak < 1.1 * (BASE_BYTES + 2 * np.prod(shape))
