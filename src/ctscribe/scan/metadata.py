"""One volume's row of CT-RATE's metadata as numbers, and how sharp its kernel is."""

import re
from dataclasses import dataclass
from typing import final

from ctscribe.base.types import SpacingMm


@final
@dataclass(frozen=True, slots=True)
class VolumeMetadata:
    """The cells of one row that reading and choosing volumes need; None where a cell is empty."""

    spacing_mm: SpacingMm | None
    slope: float | None
    intercept: float | None
    position_lps_mm: tuple[float, float, float] | None
    """ImagePositionPatient, the first voxel's centre, in DICOM's axes."""
    orientation: tuple[float, ...] | None
    """ImageOrientationPatient, six cosines."""
    kernel: str
    num_slices: int | None


def kernel_sharpness(kernel: str) -> float:
    """Sharpness of a reconstruction kernel from 0 (smooth) to 1 (sharp); 0.5 where unknown.

    Siemens gives two digits (B31f soft, B70f sharp), Canon FC numbers (below 20 soft), GE words,
    Philips letters from A, smooth, to L and Y, lung and bone.
    """
    name = kernel.upper().strip("[]'\" ")
    if canon := re.match(r"FC(\d\d)", name):
        return 0.35 if int(canon[1]) < 20 else 0.75
    if siemens := re.match(r"[A-Z]{1,2}(\d\d)", name):
        return int(siemens[1]) / 100
    words = {"SOFT": 0.2, "STAND": 0.35, "CHST": 0.4, "CHEST": 0.4, "DETAIL": 0.55, "LUNG": 0.7}
    for word, sharpness in (words | {"BONE": 0.8, "EDGE": 0.9}).items():
        if name.startswith(word):
            return sharpness
    letters = {"A": 0.2, "B": 0.35, "C": 0.5, "D": 0.6, "E": 0.7, "L": 0.75, "Y": 0.8}
    return letters.get(name[:1], 0.5) if len(name) <= 2 else 0.5


_KERNEL = re.compile(
    r"[A-Z]{1,2}|FC\d{2}|[A-Z][a-z]?\d{2}[a-z]?|I?MR\d?"
    r"|(?:SOFT|STANDARD|STND|CHST|CHEST|DETAIL|LUNG|BONE|BONEPLUS|EDGE|ULTRA|SMOOTH|SHARP)(?: ?\d)?"
)


def plain_kernel(kernel: str) -> str:
    """A kernel's name for a list of scans, such as ``Br40d 3``; empty unless it is a known kind."""
    parts = re.findall(r"[^\[\]'\",\s]+", kernel)
    is_known = bool(parts) and _KERNEL.fullmatch(parts[0]) is not None
    return " ".join(parts) if is_known and all(map(str.isdigit, parts[1:])) else ""
