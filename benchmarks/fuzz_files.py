"""Mutated NIfTI and DICOM files: what number *n* is, it is on every machine.

Sound files are made, then damaged: bits, bytes, spans, ends, fields of the header, elements,
the compressed stream or what is compressed, and splices of two files.
"""

import gzip
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from ctscribe.scan.volume import CTVolume
from tests.catalogue.dicom_bytes import enhanced_of
from tests.scans import bytes_of, chest, image_of, slice_of

SEED = 20_260_401
PLANTED = "PLANTED^NAME"
SMALL = chest((40, 32, 20), (8.0, 8.0, 5.0))
VOLUME = CTVolume(np.clip(SMALL.hu, -1024, 3071), SMALL.affine)
ODD_INTS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    255,
    348,
    352,
    540,
    1024,
    32767,
    -32768,
    65535,
    2**31 - 1,
    -(2**31),
)
ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"), 0.001)
FIELDS = {
    "h": (40, 42, 44, 46, 48, 50, 68, 70, 72, 252, 254),
    "i": (0, 16, 32, 4),
    "b": (123, 122),
    "f": (76, 80, 84, 88, 92, 108, 112, 116, *range(256, 328, 4)),
}
"""Places of NIfTI-1 fields, by their type."""
Random = np.random.Generator


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
        content = _bytes(content, random, list(nifti_files().values()))
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
        path.write_bytes(_bytes(packed.getvalue(), random, files))
        return Mutant(path, "dicom zip", False)
    for victim in random.choice(len(files), size=random.choice([1, 1, 2]), replace=False):
        files[victim] = _damaged(files[victim], random, files)
    for z, content in enumerate(files):
        (folder / f"{z}.dcm").write_bytes(content)
    return Mutant(folder, f"dicom {syntax}", False)


def _damaged(content: bytes, random: Random, others: list[bytes]) -> bytes:
    return _elements(content, random) if random.random() < 0.5 else _bytes(content, random, others)


def _bytes(content: bytes, random: Random, others: list[bytes]) -> bytes:
    """One to four changes of bytes; half of them near the beginning, where headers lie."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        reach = min(len(changed), 1000) if random.random() < 0.5 else len(changed)
        at = int(random.integers(0, max(1, reach)))
        change = random.choice(["bit", "byte", "word", "cut", "drop", "insert", "repeat", "splice"])
        span = int(random.choice([1, 2, 4, 16, 300]))
        if change == "bit" and changed:
            changed[at] ^= 1 << int(random.integers(8))
        elif change == "byte" and changed:
            changed[at] = int(random.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        elif change == "word":
            changed[at : at + 4] = struct.pack("<q", int(random.choice(ODD_INTS)))[:4]
        elif change == "cut":
            del changed[at:]
        elif change == "drop":
            del changed[at : at + span]
        elif change == "insert":
            changed[at:at] = random.bytes(span)
        elif change == "repeat":
            changed[at:at] = changed[at : at + span] * 3
        else:
            other = others[int(random.integers(len(others)))]
            changed[at:] = other[int(random.integers(len(other))) :]
    return bytes(changed)


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
