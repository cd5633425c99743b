"""Rows 1 to 11, 28 and 29: what is wrong with a NIfTI file before its voxels are believed."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.catalogue.case import Build, Case
from tests.scans import CHEST, image_of

PLAIN = bytes(image_of().to_bytes())
PACKED = gzip.compress(PLAIN, 1, mtime=0)
HEADER = 352
NAME = "scan.nii.gz"


def put(content: bytes | Callable[[], bytes], name: str = NAME) -> Build:
    """A file of these bytes."""

    def build(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content() if callable(content) else content)
        return path

    return build


def with_field(at: int, form: str, *values: float | bytes, plain: bytes = PLAIN) -> bytes:
    """The chest's NIfTI-1 file with other bytes in its header."""
    changed = bytearray(plain)
    struct.pack_into("<" + form, changed, at, *values)
    return bytes(changed)


def packed_field(at: int, form: str, *values: float | bytes) -> Build:
    """The same, gzipped."""
    return put(gzip.compress(with_field(at, form, *values), 1))


def flipped(level: int, share: float) -> bytes:
    """One bit of the compressed voxels altered."""
    packed = bytearray(gzip.compress(PLAIN, level, mtime=0))
    packed[int(len(packed) * share)] ^= 4
    return bytes(packed)


def bomb(voxels: tuple[int, int, int], zeros: int) -> bytes:
    """A header, then as many zeros in gzip members of 8 MB each."""
    header = with_field(40, "4h", 3, *voxels, plain=PLAIN[:HEADER])
    return gzip.compress(header) + gzip.compress(bytes(8 << 20)) * (zeros >> 23)


def pair(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(CHEST.hu, None, image_of().header), folder / "scan.img")
    return folder / "scan.hdr"


def extended(size: int) -> bytes:
    """A header extension that claims a size and has 32 bytes."""
    header = with_field(108, "f", float(HEADER + 32), plain=PLAIN[:HEADER])[:348] + b"\1\0\0\0"
    return header + struct.pack("<2I", size, 6) + b"x" * 24 + PLAIN[HEADER:]


CASES = [
    Case(1, "empty", put(b""), "E_EMPTY", "no bytes"),
    *(
        Case(
            2,
            f"cut at {percent} %",
            put(PACKED[: len(PACKED) * percent // 100]),
            "E_TRUNCATED",
            "ends early",
        )
        for percent in range(1, 100)
    ),
    Case(2, "trailer cut", put(PACKED[:-1]), "E_TRUNCATED", "ends early"),
    Case(2, "two bytes", put(PACKED[:2]), "E_TRUNCATED", "ends early"),
    Case(
        3, "CRC", put(PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:]), "E_CHECKSUM", "bytes were altered"
    ),
    Case(3, "size", put(PACKED[:-4] + b"\1\0\0\0"), "E_CHECKSUM", "bytes were altered"),
    *(
        Case(3, f"level {level} at {share}", put(flipped(level, share)), "E_CHECKSUM", "altered")
        for level, share in ((0, 0.3), (0, 0.9), (1, 0.3), (1, 0.6), (9, 0.5), (9, 0.97))
    ),
    Case(4, "garbage", put(PACKED + b"garbage" * 9), "E_TRAILING", "bytes follow"),
    Case(4, "less than a gzip header", put(PACKED + b"x"), "E_TRUNCATED", "ends early"),
    Case(4, "zeros", put(PACKED + bytes(512)), "W_TRAILING"),
    Case(5, "two members", put(gzip.compress(PLAIN[:90_000]) + gzip.compress(PLAIN[90_000:]))),
    Case(5, "header alone first", put(gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:]))),
    Case(6, "plain as gzip", put(PLAIN), "W_SUFFIX"),
    Case(6, "gzip as plain", put(PACKED, "scan.nii"), "W_SUFFIX"),
    Case(6, "capitals", put(PACKED, "SCAN.NII.GZ")),
    Case(7, "web page", put(b"<!DOCTYPE html><title>404</title>"), "E_NOT_MEDICAL", "a web page"),
    Case(7, "login page", put(b"<html><form>Sign in</form>"), "E_NOT_MEDICAL", "a web page"),
    Case(
        7,
        "LFS",
        put(b"version https://git-lfs.github.com/spec/v1\n"),
        "E_NOT_MEDICAL",
        "a Git LFS pointer; download the volume itself",
    ),
    Case(7, "packed page", put(gzip.compress(b"<html>" + b" " * 900)), "E_NOT_MEDICAL", "web page"),
    Case(8, "one slice more", packed_field(46, "h", 25), "E_TRUNCATED", "header promises"),
    Case(8, "a few bytes more", put(gzip.compress(PLAIN + bytes(99), 1)), "W_TRAILING"),
    Case(
        8,
        "a megabyte more",
        put(gzip.compress(PLAIN + bytes(2 << 20), 1)),
        "E_TRAILING",
        "more than a megabyte",
    ),
    Case(9, "0", packed_field(42, "h", 0), "E_DIMENSIONS", "at least 1 voxel"),
    Case(9, "below 0", packed_field(44, "h", -128), "E_DIMENSIONS", "at least 1 voxel"),
    Case(9, "none", packed_field(40, "h", 0), "E_DIMENSIONS", "three dimensions"),
    Case(9, "nine", packed_field(40, "h", 9), "E_DIMENSIONS", "three dimensions"),
    Case(9, "32767 cubed", packed_field(42, "3h", *[32767] * 3), "E_TOO_LARGE", "at most"),
    Case(10, "honest", put(lambda: bomb((1000, 1000, 200), 400 << 20)), "E_BOMB", "no CT does"),
    Case(
        10,
        "beyond DEFLATE",
        put(lambda: bomb((1000, 1000, 1000), 8 << 20)),
        "E_TRUNCATED",
        "cannot",
    ),
    Case(10, "lying", put(lambda: bomb((32, 32, 32), 64 << 20)), "E_TRAILING", "than a megabyte"),
    Case(11, "RGB", packed_field(70, "2h", 128, 24), "E_DATATYPE", "RGB colours"),
    Case(11, "complex", packed_field(70, "2h", 32, 64), "E_DATATYPE", "complex numbers"),
    Case(11, "bits", packed_field(70, "2h", 1, 1), "E_DATATYPE", "bits"),
    Case(11, "unknown", packed_field(70, "2h", 999, 16), "E_DATATYPE", "datatype 999"),
    Case(11, "bitpix", packed_field(72, "h", 8), "W_BITPIX"),
    Case(28, "offset 0", packed_field(108, "f", 0.0), "E_HEADER", "at byte 0"),
    Case(28, "offset NaN", packed_field(108, "f", float("nan")), "E_HEADER", "at byte nan"),
    Case(28, "offset huge", packed_field(108, "f", 1e9), "E_HEADER", "at byte 1e+09"),
    Case(28, "offset below 0", packed_field(108, "f", -352.0), "E_HEADER", "at byte -352"),
    Case(28, "endless extension", put(gzip.compress(extended(1 << 31))), "E_HEADER", "claims 2147"),
    Case(28, "honest extension", put(gzip.compress(extended(32)))),
    Case(28, "magic", packed_field(344, "4s", b"n+9\0"), "E_NOT_NIFTI", "does not begin as one"),
    Case(28, "header size", packed_field(0, "i", 347), "E_NOT_NIFTI", "does not begin as one"),
    Case(28, "random", put(np.random.default_rng(0).bytes(4000)), "E_NOT_NIFTI", "begin as one"),
    Case(29, "NIfTI-2", put(bytes(nib.Nifti2Image.from_image(image_of()).to_bytes()), "s.nii")),
    Case(29, "pair", pair),
    Case(
        29,
        "Zstandard",
        put(b"\x28\xb5\x2f\xfd" + PACKED, "scan.nii.zst"),
        "E_NOT_MEDICAL",
        "it is Zstandard data",
    ),
]
