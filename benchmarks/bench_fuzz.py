"""Reads 20,000 mutated files; each must give what it holds or one sentence, soon, in little memory.

The first 10,000 are scans, the others what stages store; see `fuzz_stored`.

``make bench NAME=fuzz``. Files are made and read by a child process under a memory limit; the
parent ends it where one file takes too long, counts that file as a hang, and goes on with the next.
"""

import gzip
import json
import os
import resource
import select
import struct
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from benchmarks.fuzz_bytes import ODD_INTS, Random, changed_bytes
from benchmarks.timing import resident_mb
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.scan.read import read_grid, read_volume
from ctscribe.scan.volume import CTVolume
from tests.dicom import bytes_of, enhanced_of, slice_of
from tests.scans import chest, image_of

NUM_SCANS, NUM_STORED = 10_000, 10_000
MEMORY_CAP_MB, STORED_CAP_MB = 512, 1024
"""Of which the libraries that read weights take half."""
LIMIT_S = 10.0
"""Of CPU time for one file, because the machine may be busy with other work."""
PATIENCE_S = 60.0
SEED = 20_260_401
PLANTED = "PLANTED^NAME"
SMALL = chest((40, 32, 20), (8.0, 8.0, 5.0))
VOLUME = CTVolume(np.clip(SMALL.hu, -1024, 3071), SMALL.affine)
ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"), 0.001)
FIELDS = {
    "h": (40, 42, 44, 46, 48, 50, 68, 70, 72, 252, 254),
    "i": (0, 16, 32, 4),
    "b": (123, 122),
    "f": (76, 80, 84, 88, 92, 108, 112, 116, *range(256, 328, 4)),
}
"""Places of NIfTI-1 fields, by their type."""


@dataclass(frozen=True)
class Mutant:
    """A file to read, and whether any volume that comes of it must be the undamaged one."""

    path: Path
    kind: str
    must_equal: bool


@cache
def nifti_files() -> dict[str, bytes]:
    """Sound NIfTI files by name."""
    plain = bytes(image_of(VOLUME).to_bytes())
    real = nib.Nifti1Image(VOLUME.hu.astype(np.float32) + np.float32(0.5), VOLUME.affine)
    second = nib.Nifti2Image.from_image(image_of(VOLUME))
    header = bytearray(plain[:348])
    struct.pack_into("<f", header, 108, 400.0)
    extended = bytes(header) + b"\1\0\0\0" + struct.pack("<2i", 48, 6) + b"x" * 40 + plain[352:]
    return {
        "plain.nii": plain,
        "real.nii": bytes(real.to_bytes()),
        "second.nii": bytes(second.to_bytes()),
        "extended.nii": extended,
        **{f"level{level}.nii.gz": gzip.compress(plain, level, mtime=0) for level in (0, 1, 9)},
    }


@cache
def dicom_slices(syntax: str) -> tuple[bytes, ...]:
    """The series' files in one transfer syntax."""
    made = []
    for z in range(VOLUME.shape_xyz[2]):
        image = slice_of(z, VOLUME)
        image.PatientName = image.PatientID = PLANTED
        if syntax == "implicit":
            image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if syntax == "big":
            image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            image.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
        if syntax == "rle":
            image.compress(RLELossless, generate_instance_uid=False)
        made.append(bytes_of(image))
    return tuple(made)


def mutant(number: int, folder: Path) -> Mutant:
    """Writes mutated file `number` below an empty folder; even ones are NIfTI, odd ones DICOM."""
    random = np.random.default_rng([SEED, number])
    return (_dicom if number % 2 else _nifti)(random, folder)


def _nifti(random: Random, folder: Path) -> Mutant:
    name = str(random.choice(sorted(nifti_files())))
    content = nifti_files()[name]
    is_packed = name.endswith(".gz")
    inside = is_packed and random.random() < 0.5
    if inside:
        content = gzip.decompress(content)
    change = random.choice(["bytes", "field"] if inside or not is_packed else ["bytes"])
    if change == "field":
        content = _fields(content, random)
    else:
        content = changed_bytes(content, random, list(nifti_files().values()))
    if inside:
        content = gzip.compress(content, 1, mtime=0)
    path = folder / name
    path.write_bytes(content)
    # a checksum over what was not touched leaves no room for another volume
    return Mutant(path, f"nifti {'inside' if inside else change}", is_packed and not inside)


def _dicom(random: Random, folder: Path) -> Mutant:
    form = str(random.choice(["folder", "enhanced", "zip"], p=[0.7, 0.2, 0.1]))
    if form == "enhanced":
        whole = bytes_of(enhanced_of(VOLUME))
        path = folder / "all.dcm"
        path.write_bytes(_damaged(whole, random, [whole]))
        return Mutant(path, "dicom enhanced", False)
    syntax = str(random.choice(["explicit", "implicit", "big", "rle"], p=[0.6, 0.2, 0.17, 0.03]))
    files = list(dicom_slices(syntax))
    if form == "zip":
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, True, 1) as archive:
            for z, content in enumerate(files):
                archive.writestr(f"{z}.dcm", content)
        path = folder / "series.zip"
        path.write_bytes(changed_bytes(packed.getvalue(), random, files))
        return Mutant(path, "dicom zip", False)
    for victim in random.choice(len(files), size=random.choice([1, 1, 2]), replace=False):
        files[victim] = _damaged(files[victim], random, files)
    for z, content in enumerate(files):
        (folder / f"{z}.dcm").write_bytes(content)
    return Mutant(folder, f"dicom {syntax}", False)


def _damaged(content: bytes, random: Random, others: list[bytes]) -> bytes:
    return (
        _elements(content, random)
        if random.random() < 0.5
        else changed_bytes(content, random, others)
    )


def _fields(content: bytes, random: Random) -> bytes:
    """One to three header fields of odd values."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        form = str(random.choice(sorted(FIELDS)))
        at = int(random.choice(FIELDS[form]))
        if form == "f":
            value: float = float(random.choice(ODD_FLOATS))
        else:
            bits = 8 * struct.calcsize(form)
            value = int(random.choice(ODD_INTS)) % (1 << bits) - (1 << bits - 1)
        struct.pack_into("<" + form, changed, at, value)
    return bytes(changed)


def _elements(content: bytes, random: Random) -> bytes:
    """One or two elements removed, emptied, or holding bytes of the wrong length or kind."""
    image = pydicom.dcmread(BytesIO(content))
    for _ in range(int(random.integers(1, 3))):
        tags = [tag for tag in image if tag.tag != (0x7FE0, 0x0010) or random.random() < 0.2]
        if not tags:
            break
        element = tags[int(random.integers(len(tags)))]
        change: Callable[[], bytes] | None = (
            None,
            lambda: b"",
            lambda: random.bytes(int(random.integers(1, 40))),
            lambda: str(random.choice(ODD_FLOATS)).encode(),
            lambda: b"1\\" * int(random.integers(1, 9)),
            lambda: b"0" * 70_000,
        )[int(random.integers(6))]
        if change is None or element.VR == "SQ":
            del image[element.tag]
        else:
            raw = pydicom.dataelem.RawDataElement(
                element.tag, element.VR, 0, change(), 0, bool(image.is_implicit_VR), True, True
            )
            image._dict[element.tag] = raw
    written = BytesIO()
    try:
        image.save_as(written)
    except Exception:
        return content[: int(random.integers(len(content)))]
    return written.getvalue()


def outcome(number: int) -> tuple[str, str]:
    """What a mutated file is, and what it ends in: a code, what it holds, or what must not be."""
    if number >= NUM_SCANS:
        from benchmarks import fuzz_stored  # brings torch, which scans do without

        return fuzz_stored.outcome(number - NUM_SCANS)
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
    hu, affine, spacing_mm = volume.hu, volume.affine, volume.spacing_mm
    same = np.array_equal(hu, VOLUME.hu) and np.allclose(affine, VOLUME.affine, atol=1e-3)
    faults = {
        "another volume under a good checksum": made.must_equal and not same,
        "geometry": not np.isfinite(affine).all() or hu.shape != grid.hu.shape or hu.shape[2] < 20,
        "spacing": min(spacing_mm) < 0.05 or max(spacing_mm) > 20,
        "values": volume.orientation != "RAS" or hu.min() < -1024 or hu.max() > 3071,
        "codes": not notes.codes <= CODES.keys(),
    }
    found = ", ".join(fault for fault, is_so in faults.items() if is_so)
    return made.kind, f"WRONG {found}" if found else "volume"


def work(first: int, stop: int) -> None:
    """The child: one line of JSON per file, and nothing that libraries print."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    limit = (4 if first < NUM_SCANS else 16) << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, stop):
        began, cpu_s = time.perf_counter(), _cpu_s()
        kind, ended = outcome(number)
        wall_s = time.perf_counter() - began
        spent = _cpu_s() - cpu_s
        print(json.dumps([number, kind, ended, wall_s, resident_mb("VmHWM"), spent]), file=told)


def _cpu_s() -> float:
    """Of this process and of the decoders that it has waited for."""
    whom = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in whom)


def supervise(first: int, stop: int) -> list[list[Any]]:
    """Rows of these files, however many children it takes."""
    rows: list[list[Any]] = []
    while (number := first + len(rows)) < stop:
        command = [sys.executable, "-m", "benchmarks.bench_fuzz", str(number), str(stop)]
        child = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE)
        assert child.stdout is not None
        while (number := first + len(rows)) < stop:
            if not select.select([child.stdout], [], [], PATIENCE_S)[0]:
                rows.append([number, "?", "HANG", PATIENCE_S, 0.0, PATIENCE_S])
                break
            line = child.stdout.readline()
            if not line:
                rows.append([number, "?", "DIED", 0.0, 0.0, 0.0])
                break
            rows.append(json.loads(line))
        child.kill()
        child.wait()
        print(f"{len(rows)} files", flush=True)
    return rows


def summary(rows: list[list[Any]], cap_mb: int) -> dict[str, Any]:
    """Counts, extremes and, with their numbers, all files that must not be."""
    fine = {"volume", "same", "other", *CODES}
    return {
        "num_files": len(rows),
        "seed": SEED,
        "by_kind": dict(sorted(Counter(row[1] for row in rows).items())),
        "by_outcome": dict(sorted(Counter(row[2].split()[0] for row in rows).items())),
        "not_typed": [row[:3] for row in rows if row[2] not in fine],
        "peak_mb": round(max(row[4] for row in rows), 1),
        "memory_cap_mb": cap_mb,
        "slowest_wall_s": round(max(row[3] for row in rows), 2),
        "slowest_cpu_s": round(max(row[5] for row in rows), 2),
        "cpu_s": round(sum(row[5] for row in rows), 1),
        "limit_cpu_s": LIMIT_S,
    }


def main() -> None:
    if len(sys.argv) > 1:
        work(*map(int, sys.argv[1:]))
        return
    from benchmarks.harness import record  # brings torch, which the children's memory is free of

    scans = summary(supervise(0, NUM_SCANS), MEMORY_CAP_MB)
    stored = summary(supervise(NUM_SCANS, NUM_SCANS + NUM_STORED), STORED_CAP_MB)
    record("fuzz", {**scans, "stored": stored})
    held = all(
        not part["not_typed"]
        and part["peak_mb"] < part["memory_cap_mb"]
        and part["slowest_cpu_s"] < LIMIT_S
        for part in (scans, stored)
    )
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
