"""One reconstruction per scan, by a stated rule."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from ctscribe.reports.ct_rate import parse_volume_name
from ctscribe.reports.ct_rate_cells import VolumeMetadata

Reconstructions = Literal["one", "all"]


def choose_reconstructions(
    metadata: Mapping[str, VolumeMetadata],
    names: Iterable[str],
    thin_mm: float,
    reconstructions: Reconstructions = "one",
) -> list[str]:
    """Picks for each scan the reconstruction that serves best, or all of them.

    The thinnest slices win, all at or below `thin_mm` counting as equally thin; then the
    softest kernel, whose noise is lowest; then more slices; then the lower number.

    Args:
        metadata: Rows by VolumeName; a volume without one comes last in its scan.
        names: VolumeNames to choose among.
        thin_mm: Slice distance below which nothing is gained.
        reconstructions: one picks, all takes every name.

    Returns:
        VolumeNames in the order of `natural_order`, one per scan unless all are asked for.
    """
    if reconstructions == "all":
        return sorted(names, key=natural_order)
    by_scan: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_scan[parse_volume_name(name).scan_id].append(name)

    def preference(name: str) -> tuple[float, float, int, int]:
        row = metadata.get(name)
        number = parse_volume_name(name).reconstruction
        if row is None or row.spacing_mm is None:
            return float("inf"), 0.0, 0, number
        thickness = max(row.spacing_mm[2], thin_mm)
        return thickness, kernel_sharpness(row.kernel), -(row.num_slices or 0), number

    return sorted((min(group, key=preference) for group in by_scan.values()), key=natural_order)


def natural_order(volume_name: str) -> tuple[str, int, str, int]:
    """Sorts train before valid, then patients and reconstructions by number."""
    parts = parse_volume_name(volume_name)
    patient = int(parts.patient_id.split("_")[1])
    return parts.split, patient, parts.scan_id.rsplit("_", 1)[1], parts.reconstruction


def kernel_sharpness(kernel: str) -> float:
    """From 0, smooth, to 1, sharp; 0.5 for a kernel whose name is not known.

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
