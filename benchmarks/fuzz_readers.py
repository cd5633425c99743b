"""Reads 10,000 mutated files; each must give a volume or one sentence, soon and in little memory.

Files are made and read by a child process under a memory limit; the parent ends it where one
file takes too long, counts that file as a hang, and goes on with the next. ``make fuzz``.
"""

import argparse
import json
import platform
import resource
import select
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.fuzz_files import PLANTED, SEED, VOLUME, mutant
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import write_json
from ctscribe.scan.read import read_grid, read_volume

NUM_FILES = 10_000
MEMORY_CAP_MB = 512
LIMIT_S = 10.0
"""Of CPU time for one file, because the machine may be busy with other work."""
PATIENCE_S = 60.0
TARGET = Path(__file__).parent / "results" / "fuzz.json"


def outcome(number: int) -> tuple[str, str]:
    """What a mutated file is, and what it ends in: a code, ``volume``, or what must not be."""
    with TemporaryDirectory() as folder:
        with warnings.catch_warnings(action="ignore"):
            made = mutant(number, Path(folder))
        warnings.simplefilter("error")
        try:
            volume, notes = read_volume(made.path, study="scan 1")
            grid, _ = read_grid(made.path, study="scan 1")
        except CtscribeError as error:
            sound = error.code in CODES and error.sentence.startswith("scan 1 must ")
            clean = PLANTED not in error.sentence and "\n" not in error.sentence
            return made.kind, error.code if sound and clean else f"BAD SENTENCE {error}"
        except Exception:
            return made.kind, "TRACEBACK " + traceback.format_exc()[-600:]
    faults = []
    hu, affine = volume.hu, volume.affine
    if made.must_equal and not (
        np.array_equal(hu, VOLUME.hu) and np.allclose(affine, VOLUME.affine, atol=1e-3)
    ):
        faults.append("another volume under a good checksum")
    if not np.isfinite(affine).all() or hu.shape != grid.hu.shape or hu.shape[2] < 20:
        faults.append("geometry")
    if min(volume.spacing_mm) < 0.05 or max(volume.spacing_mm) > 20:
        faults.append("spacing")
    if volume.orientation != "RAS" or hu.min() < -1024 or hu.max() > 3071:
        faults.append("values")
    if not notes.codes <= CODES.keys():
        faults.append("codes")
    return made.kind, f"WRONG {', '.join(faults)}" if faults else "volume"


def work(first: int, stop: int) -> None:
    """The child: one line of JSON per file."""
    limit = 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, stop):
        begun, cpu_s = time.perf_counter(), cpu_so_far_s()
        kind, ended = outcome(number)
        row = [number, kind, ended, time.perf_counter() - begun, peak_mb()]
        print(json.dumps([*row, cpu_so_far_s() - cpu_s]), flush=True)


def cpu_so_far_s() -> float:
    """CPU time of this process and of the decoders that it has waited for."""
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whom))


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def supervise(first: int, stop: int) -> list[list[Any]]:
    """Rows of a range of files, however many children it takes."""
    rows: list[list[Any]] = []
    while first + len(rows) < stop:
        at = first + len(rows)
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzz_readers", "--child", str(at), str(stop)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        while True:
            if not select.select([child.stdout], [], [], PATIENCE_S)[0]:
                rows.append([first + len(rows), "?", "HANG", PATIENCE_S, 0.0, PATIENCE_S])
                break
            line = child.stdout.readline()
            if not line:
                if first + len(rows) < stop:
                    rows.append([first + len(rows), "?", "DIED", 0.0, 0.0, 0.0])
                break
            rows.append(json.loads(line))
            if len(rows) % 500 == 0:
                print(f"{first + len(rows)} files", flush=True)
        child.kill()
        child.wait()
    return rows


def summary(rows: list[list[Any]]) -> dict[str, Any]:
    """Counts, extremes and, with their numbers, all files that must not be."""
    fine = {"volume", *CODES}
    formats = ("nifti", "dicom")
    return {
        "num_files": len(rows),
        "seed": SEED,
        "first_file": rows[0][0],
        "by_format": {name: sum(row[1].startswith(name) for row in rows) for name in formats},
        "by_kind": dict(sorted(Counter(row[1] for row in rows).items())),
        "by_outcome": dict(sorted(Counter(row[2].split()[0] for row in rows).items())),
        "not_typed": [row[:3] for row in rows if row[2] not in fine],
        "peak_mb": round(max(row[4] for row in rows), 1),
        "memory_cap_mb": MEMORY_CAP_MB,
        "slowest_wall_s": round(max(row[3] for row in rows), 2),
        "slowest_cpu_s": round(max(row[5] for row in rows), 2),
        "cpu_s": round(sum(row[5] for row in rows), 1),
        "limit_cpu_s": LIMIT_S,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "nibabel", "pydicom", "isal")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, type=int)
    parser.add_argument("--files", type=int, default=NUM_FILES)
    asked = parser.parse_args()
    if asked.child:
        work(*asked.child)
        return
    found = summary(supervise(0, asked.files))
    print(json.dumps(found, indent=2))
    if asked.files == NUM_FILES:
        write_json(TARGET, found)
    held = not found["not_typed"] and found["peak_mb"] < MEMORY_CAP_MB
    sys.exit(0 if held and found["slowest_cpu_s"] < LIMIT_S else 1)


if __name__ == "__main__":
    main()
