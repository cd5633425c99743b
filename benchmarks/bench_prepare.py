"""CPU time and memory of preparing one volume: ours against other libraries, on one input.

``make bench-prepare`` runs it, with the peers in an environment of their own. Each contender runs
in a fresh process, one at a time, `REPEATS` times in turn; the medians count. The input is a
synthetic chest of 512 × 512 × 300 int16 at 0.6 × 0.6 × 1.0 mm, written by nibabel.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from ctscribe.base.files import write_json

HERE = Path(__file__).parent
OUT = HERE / "results" / "prepare.json"
SHAPE, SPACING_MM = (512, 512, 300), (0.6, 0.6, 1.0)
REPEATS = 3
NUM_SCALED = 6
PEERS = ("monai", "torchio", "simpleitk", "float64_recipe")
OURS = ("ours_keep_slices", "ours_keep_all", "ours_in_memory", "inflate_only")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
}


def make_volume(path: Path) -> None:
    """A chest with ribs, spine, mediastinum and vessels, noise of CT's grain, padded corners."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE[:2]), indexing="ij")
    tissue = ndimage.gaussian_filter(random.normal(0, 1, (64, 512, 512)), (2, 3, 3))
    vessels = (tissue > 2.2 * tissue.std()).astype(np.float32)
    noise = ndimage.gaussian_filter(random.normal(0, 1, (64, 512, 512)), (0, 0.7, 0.7))
    noise *= 22 / noise.std()
    hu = np.empty(SHAPE, dtype=np.int16, order="F")
    for index, z in enumerate(np.linspace(-1, 1, SHAPE[2])):
        plane = np.full(SHAPE[:2], -1000, dtype=np.float32)
        body = (x / 0.88) ** 2 + (y / 0.68) ** 2
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


def measure(name: str, volume: Path, peers: Path) -> dict[str, float]:
    python = sys.executable if name in OURS else str(peers / "bin" / "python")
    with tempfile.TemporaryDirectory(dir=volume.parent) as out:
        ended = subprocess.run(
            [python, str(HERE / "prepare_contenders.py"), name, str(volume), out],
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            check=True,
        )
    told: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return told


def prepare_one(volume: Path, out: Path, number: int) -> float:
    """Prepares a volume in a worker; returns its CPU seconds."""
    from ctscribe.data.prepared import prepare_into

    begun = time.process_time()
    options = {"spacing_mm": (0.75, 0.75, 1.5), "num_slices": 10}
    prepare_into(out, f"{number}.nii.gz", volume, None, options, "slices")
    return time.process_time() - begun


def scaling(volume: Path) -> dict[str, float]:
    """Volumes per second with two worker processes over twice those with one; best of three."""
    best: dict[int, float] = {}
    cpu: dict[int, float] = {}
    for _ in range(3):
        for processes in (1, 2):
            with (
                tempfile.TemporaryDirectory(dir=volume.parent) as out,
                ProcessPoolExecutor(processes, get_context("spawn")) as pool,
            ):
                warm = [pool.submit(prepare_one, volume, Path(out), -n) for n in range(1, 5)]
                for future in warm:
                    future.result()
                begun = time.perf_counter()
                used = [pool.submit(prepare_one, volume, Path(out), n) for n in range(NUM_SCALED)]
                seconds = [future.result() for future in used]
                wall = time.perf_counter() - begun
            if wall < best.get(processes, float("inf")):
                best[processes], cpu[processes] = wall, statistics.mean(seconds)
    return {
        "by_wall": best[1] / (2 * best[2]),
        "by_cpu": cpu[1] / cpu[2],
        "wall_s_1": best[1] / NUM_SCALED,
        "wall_s_2": best[2] / NUM_SCALED,
    }


def copied_per_s() -> float:
    """Bytes read and written per second by copying 256 MB; best of ten."""
    source = np.ones(256 << 20, dtype=np.uint8)
    target = np.zeros_like(source)
    best = 0.0
    for _ in range(10):
        begun = time.process_time()
        np.copyto(target, source)
        best = max(best, 2 * source.size / (time.process_time() - begun))
    return best


def main() -> None:
    peers = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder) / "volume.nii.gz"
        make_volume(volume)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *PEERS)}
        for _ in range(REPEATS):
            for name, found in runs.items():
                found.append(measure(name, volume, peers))
        scaled = scaling(volume)
        stored = volume.stat().st_size
    middle = {
        key: {name: statistics.median(run[key] for run in found) for name, found in runs.items()}
        for key in ("cpu_s", "peak_mb")
    }
    for table in middle.values():
        table["ours"] = table["ours_keep_slices"]
    bandwidth = copied_per_s()
    inflated = 2 * int(np.prod(SHAPE))
    write_json(OUT, _result(runs, middle, scaled, (stored + 2 * inflated) / bandwidth, peers))
    print(json.dumps({"cpu_s": middle["cpu_s"], "peak_mb": middle["peak_mb"], **scaled}, indent=2))


def _result(
    runs: dict[str, list[dict[str, float]]],
    middle: dict[str, dict[str, float]],
    scaled: dict[str, float],
    floor_s: float,
    peers: Path,
) -> dict[str, Any]:
    cpu, peak = middle["cpu_s"], middle["peak_mb"]
    ways = ("ours_keep_slices", "ours_keep_all", "ours_in_memory")
    return {
        "cpu_s": _rounded(cpu),
        "peak_mb": _rounded(peak),
        "ours": (
            "ours is `prepare --keep slices`: all checks and hashes, ten frames resampled, written "
            "and flushed; ours_keep_all also resamples the whole volume and writes both stores; "
            "ours_in_memory gives the whole normalised volume in memory, as the peers do, and "
            "writes nothing"
        ),
        "ratios": {way: _ratios(cpu, way) for way in ways},
        "targets": {
            "monai_over_ours": 10,
            "float64_recipe_over_ours": 6,
            "ours_over_inflate_only": 1.5,
            "peak_mb": 320,
            "scaling_2_processes": 0.85,
        },
        "scaling_2_processes": round(scaled["by_wall"], 3),
        "scaling": _rounded(scaled),
        "memory_floor_s": round(floor_s, 4),
        "memory_floor": "file read, voxels written and read once, over the bandwidth of a copy",
        "spread_cpu_s": {
            name: [round(pick(run["cpu_s"] for run in found), 3) for pick in (min, max)]
            for name, found in runs.items()
        },
        "repeats": REPEATS,
        "input": f"{SHAPE} int16 .nii.gz at {SPACING_MM} mm, synthetic",
        "device": f"{platform.machine()}, {os.cpu_count()} cores, one thread each",
        "versions": {
            **{name: version(name) for name in ("numpy", "isal", "nibabel")},
            "python": platform.python_version(),
            "peers": (HERE / "prepare_peers.txt").read_text(encoding="ascii").split(),
            "peers_python": _python_of(peers),
        },
    }


def _ratios(cpu_s: dict[str, float], way: str) -> dict[str, float]:
    return _rounded(
        {
            "monai_over_ours": cpu_s["monai"] / cpu_s[way],
            "float64_recipe_over_ours": cpu_s["float64_recipe"] / cpu_s[way],
            "ours_over_inflate_only": cpu_s[way] / cpu_s["inflate_only"],
        }
    )


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in sorted(numbers.items())}


def _python_of(peers: Path) -> str:
    command = [str(peers / "bin" / "python"), "-c", "import sys; print(sys.version.split()[0])"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
