"""Rows 38 to 41 and 44: DICOM files that are damaged, compressed or hostile."""

import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from tests.catalogue.case import Build, Case
from tests.catalogue.dicom_folders import DEPTH, series
from tests.dicom import (
    as_jpeg_2000,
    as_rle,
    as_syntax,
    bytes_of,
    enhanced_of,
    on_slice,
    slice_of,
    write_series,
)
from tests.scans import CHEST


def with_bytes(change: Callable[[bytes], bytes]) -> Build:
    """The series with one of its files altered."""

    def build(folder: Path) -> Path:
        write_series(folder / "series")
        victim = sorted((folder / "series").iterdir())[9]
        victim.write_bytes(change(victim.read_bytes()))
        return folder / "series"

    return build


def as_unknown(image: FileDataset, z: int) -> None:
    image.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")  # MPEG2
    image.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    image["PixelData"].VR = "OB"


def with_damaged_rle(image: FileDataset, z: int) -> None:
    as_rle(image, z)
    image.PixelData = encapsulate([b"\x01" + bytes(90)])
    image["PixelData"].VR = "OB"


def enhanced(folder: Path) -> Path:
    (folder / "all").write_bytes(bytes_of(enhanced_of(CHEST)))
    return folder / "all"


def bare(folder: Path) -> Path:
    """As in archives older than part 10 of the standard: elements from the first byte."""
    (folder / "series").mkdir()
    for z in range(DEPTH):
        image = slice_of(z)
        content = BytesIO()
        plain = Dataset(image)
        plain.save_as(content, implicit_vr=True, little_endian=True)
        (folder / "series" / f"IM{z:04}").write_bytes(content.getvalue())
    return folder / "series"


def deflated_bomb(content: bytes) -> bytes:
    image = slice_of(9)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = bytes_of(image)
    packer = zlib.compressobj(9, wbits=-15)
    return whole[:400] + packer.compress(bytes(64 << 20)) + packer.flush()


def nested(levels: int) -> Callable[[bytes], bytes]:
    """An unknown sequence within itself, its lengths undefined."""
    start = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"

    def change(content: bytes) -> bytes:
        at = content.index(b"\x08\x00\x18\x00UI")
        return content[:at] + (start + item) * levels + content[at:]

    return change


def claiming_4_gb(tag: bytes) -> Callable[[bytes], bytes]:
    """One element, by tag and representation, states a length of 4 GB."""

    def change(content: bytes) -> bytes:
        at = content.index(tag) + 8
        return content[:at] + b"\xfe\xff\xff\xff" + content[at + 4 :]

    return change


def program(image: FileDataset, z: int) -> None:
    image.preamble = (b"MZ\x90\0" if z % 2 else b"\x7fELF").ljust(128, b"\0")


CASES = [
    Case(
        38, "cut", with_bytes(lambda whole: whole[: len(whole) // 2]), "E_TRUNCATED", "or damaged"
    ),
    Case(38, "cut in the header", with_bytes(lambda whole: whole[:300]), "E_TRUNCATED", "cut or"),
    Case(38, "empty", with_bytes(lambda whole: b""), "E_TRUNCATED", "cut or damaged"),
    Case(38, "few pixels", series(on_slice(9, PixelData=bytes(10))), "E_TRUNCATED", "cut or"),
    Case(38, "65535 rows", series(on_slice(None, Rows=65535)), "E_TRUNCATED", "cut or damaged"),
    Case(38, "too few bits", series(on_slice(None, BitsStored=9, HighBit=8)), "E_BITS", "9 bits"),
    Case(38, "no bits", series(on_slice(None, BitsStored=0)), "E_BITS", "the 0 bits"),
    Case(38, "bits aside", series(on_slice(None, HighBit=15)), "E_BITS", "of the 12 bits"),
    Case(
        38,
        "signed stored as unsigned",
        series(
            lambda image, z: on_slice(
                None,
                BitsStored=16,
                HighBit=15,
                RescaleIntercept=0,
                PixelData=(np.frombuffer(image.PixelData, "i2") - 1024).tobytes(),
            )(image, z)
        ),
        "E_NOT_HU",
        "near 0 Hounsfield units",
    ),
    Case(38, "unsigned called signed", series(on_slice(None, PixelRepresentation=1))),
    Case(39, "RLE", series(as_rle)),
    Case(39, "JPEG 2000", series(as_jpeg_2000)),
    Case(39, "big endian", series(as_syntax(ExplicitVRBigEndian))),
    Case(39, "implicit", series(as_syntax(ImplicitVRLittleEndian))),
    Case(39, "no preamble", bare),
    Case(39, "enhanced", enhanced),
    Case(
        39, "decoder missing", series(as_unknown), "E_CODEC", "pip install ctscribe[dicom-codecs]"
    ),
    Case(39, "deflated", series(as_syntax(DeflatedExplicitVRLittleEndian)), "E_CODEC", "deflated"),
    Case(40, "deflated bomb", with_bytes(deflated_bomb), "E_CODEC", "without bound"),
    Case(40, "damaged RLE", series(with_damaged_rle), "E_TRUNCATED", "cut or damaged"),
    Case(40, "nested 1000 times", with_bytes(nested(1000)), "E_TRUNCATED", "cut or damaged"),
    Case(40, "nested 100,000 times", with_bytes(nested(100_000)), "E_TRUNCATED", "cut or damaged"),
    Case(40, "pixels that claim 4 GB", with_bytes(claiming_4_gb(b"\xe0\x7f\x10\x00OW"))),
    Case(
        40,
        "element of 4 GB",
        with_bytes(
            lambda whole: claiming_4_gb(b"\x08\0\x01\x10UT")(
                whole.replace(b"\x08\0\x16\0UI", b"\x08\0\x01\x10UT\0\0\0\0\0\0\x08\0\x16\0UI", 1)
            )
        ),
        "E_TRUNCATED",
        "cut or damaged",
    ),
    Case(41, "program", series(program), "W_PREAMBLE"),
    Case(44, "burned in", series(on_slice(None, BurnedInAnnotation="YES")), "W_BURNED_IN"),
]
