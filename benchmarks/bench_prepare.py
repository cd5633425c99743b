"""CPU time and memory of preparing one volume: ours against other libraries, on one input.

``make bench NAME=prepare`` runs it, with the peers in an environment of their own. Each contender
runs in a fresh process, one at a time, `REPEATS` times in turn; the medians count. The input is a
synthetic chest of 512 × 512 × 300 int16 at 0.6 × 0.6 × 1.0 mm, written by nibabel.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.harness import ROOT, record
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.base.workers import worker_pool
from ctscribe.data.prepare_volume import Preparation, prepare_into

SHAPE, SPACING_MM = (512, 512, 300), (0.6, 0.6, 1.0)
REPEATS, NUM_SCALED = 3, 6
PEERS = ("monai", "torchio", "simpleitk", "float64_recipe")
OURS = ("ours_keep_slices", "ours_keep_all", "ours_in_memory", "inflate_only")
THREADS: tuple[str, ...] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
THREADS += ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",)
MEANING = (
    "ours_keep_slices is `prepare --keep slices`: all checks and hashes, ten frames resampled, "
    "written and flushed; ours_keep_all also resamples the whole volume and writes both stores; "
    "ours_in_memory gives the whole normalised volume in memory, as the peers do"
)


def make_volume(path: Path) -> None:
    """A chest with ribs, spine, mediastinum and vessels, noise of CT's grain, padded corners."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE[:2]), indexing="ij")
    tissue = ndimage.gaussian_filter(random.normal(0, 1, (64, *SHAPE[:2])), (2, 3, 3))
    vessels = (tissue > 2.2 * tissue.std()).astype(np.float32)
    noise = ndimage.gaussian_filter(random.normal(0, 1, (64, *SHAPE[:2])), (0, 0.7, 0.7))
    noise *= 22 / noise.std()
    hu = np.empty(SHAPE, dtype=np.int16, order="F")
    body = (x / 0.88) ** 2 + (y / 0.68) ** 2
    for index, z in enumerate(np.linspace(-1, 1, SHAPE[2])):
        plane = np.full(SHAPE[:2], -1000, dtype=np.float32)
        plane[body < 1] = -90
        plane[body < 0.85] = 45
        ribs = (np.abs(body - 0.8) < 0.03) & (np.cos(9 * np.arctan2(y, x) + 12 * z) > 0.3)
        plane[ribs] = 420
        plane[x**2 / 0.012 + (y - 0.45) ** 2 / 0.01 < 1] = 260
        for side in (-0.42, 0.42):
            lung = ((x - side) / 0.33) ** 2 + (y / 0.5) ** 2 + (z / 0.85) ** 2 < 1
            plane[lung] = -860 + 880 * vessels[index % 64][lung]
        plane += noise[index % 64] * (0.6 + 0.4 * (body < 1))
        plane[x**2 + y**2 > 1] = -1024
        hu[:, :, index] = np.rint(plane)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    affine[:3, 3] = (153.0, 153.0, -300.0)
    image = nib.Nifti1Image(hu, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def contend(name: str, volume: Path, peers: Path) -> dict[str, float]:
    python = sys.executable if name in OURS else str(peers / "bin" / "python")
    with TemporaryDirectory(dir=volume.parent) as out:
        ended = subprocess.run(
            [python, "-m", "benchmarks.prepare_contenders", name, str(volume), out],
            cwd=ROOT,
            env=os.environ | dict.fromkeys(THREADS, "1"),
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def prepare_one(volume: Path, out: Path, number: int) -> None:
    how = Preparation(VolumeConfig(), SlicesConfig(), "slices")
    prepare_into(out, f"{number}.nii.gz", volume, None, how)


def seconds_per_volume(volume: Path, processes: int) -> float:
    """With worker processes that have prepared a volume before."""
    with (
        TemporaryDirectory(dir=volume.parent) as out,
        worker_pool(processes) as pool,
    ):
        work = partial(prepare_one, volume, Path(out))
        list(pool.map(work, range(-4, 0)))
        began = time.perf_counter()
        list(pool.map(work, range(NUM_SCALED)))
        return (time.perf_counter() - began) / NUM_SCALED


def main() -> None:
    peers = Path(sys.argv[1])
    with TemporaryDirectory() as folder:
        volume = Path(folder) / "volume.nii.gz"
        make_volume(volume)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *PEERS)}
        for _ in range(REPEATS):
            for name, found in runs.items():
                found.append(contend(name, volume, peers))
        one, two = (
            min(seconds_per_volume(volume, processes) for _ in range(REPEATS))
            for processes in (1, 2)
        )
    cpu, peak = (
        {name: round(statistics.median(r[key] for r in found), 3) for name, found in runs.items()}
        for key in ("cpu_s", "peak_mb")
    )
    result = {
        "cpu_s": cpu,
        "peak_mb": peak,
        "meaning": MEANING,
        "cpu_s_over": {
            own: {name: round(cpu[name] / cpu[own], 3) for name in (*PEERS, "inflate_only")}
            for own in OURS[:3]
        },
        "spread_cpu_s": {
            name: [round(pick(run["cpu_s"] for run in found), 3) for pick in (min, max)]
            for name, found in runs.items()
        },
        "scaling_2_processes": round(one / (2 * two), 3),
        "input": f"{SHAPE} int16 .nii.gz at {SPACING_MM} mm, synthetic",
        "peers": Path(__file__).with_name("prepare_peers.txt").read_text(encoding="ascii").split(),
    }
    record("prepare", result)


if __name__ == "__main__":
    main()
