"""What a page tells its viewer: the scan, its windows, and the places that sentences rest on.

In: the scan as it was read and the sentences' slices and boxes. Out: plain values for
``viewer.js``, in voxels of the scan that the page carries, whose axes run right, anterior and
superior.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from ctscribe.scan.boxes import bounds_in
from ctscribe.scan.frames import Window
from ctscribe.scan.intensity import AIR_HU, METAL_HU
from ctscribe.scan.types import Affine
from ctscribe.scan.volume import CTVolume, spacing_of
from ctscribe.show.packed_volume import DEPTH, LEVELS, PackedVolume
from ctscribe.show.page import READING_WINDOWS, printable
from ctscribe.text.labeler import find_mentions
from ctscribe.text.other_findings import find_other_findings
from ctscribe.write.draft import SentenceRow

LUNG, SOFT_TISSUE = READING_WINDOWS
BONE = Window("bone", 400.0, 1800.0)
VIEWER_WINDOWS = (LUNG, SOFT_TISSUE, BONE, Window("wide", 0.0, 2000.0))
"""In the order of their keys, 1 to 4."""
BAR_MM = 50
_STRAIGHT_DEGREES = 1.0
"""A scan that is turned by less is told as straight."""

_IN_SOFT_TISSUE = frozenset(
    {
        "Arterial wall calcification",
        "Cardiomegaly",
        "Coronary artery wall calcification",
        "Hiatal hernia",
        "Lymphadenopathy",
        "Medical material",
        "Pericardial effusion",
        "Pleural effusion",
        "Pulmonary embolism",
        "Thyroid nodule or goitre",
        "Liver lesion",
        "Hepatic steatosis",
        "Gallstones",
        "Kidney stones",
        "Kidney cyst",
        "Adrenal lesion",
    }
)
_BONE_WORDS = re.compile(r"\b(?:bon[ey]|osse|osteo|rib|vertebra|stern|clavic|scapul|spin)", re.I)
_SOFT_TISSUE_WORDS = re.compile(
    r"\b(?:heart|cardi|pericardi|mediastin|aort|vascular|vessel|coronar|oesophag|esophag|thyroid"
    r"|lymph|axill|liver|spleen|pancrea|gall|kidney|renal|adrenal|abdom|breast|pleural)",
    re.I,
)


@final
@dataclass(frozen=True)
class ShownScan:
    """The scan behind a report.

    Args:
        volume: As it was scanned, in RAS orientation.
        frame_to_ras: (column px, row px, z index, 1) of the report's slices → RAS+ mm.
        reach_z: From which z index to which each slice shows the scan, by its number.
    """

    volume: CTVolume
    frame_to_ras: Affine
    reach_z: tuple[tuple[float, float], ...]


@final
@dataclass(frozen=True)
class Place:
    """Where a sentence rests, in voxels along (x, y, z); ``low`` and ``high`` are outer edges.

    ``boxed`` is false for one that is known by its slices alone, which it then fills; ``slice``
    is the z index that shows it.
    """

    sentence: int
    text: str
    window: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    boxed: bool
    slice: int


def reading_window(sentence: str) -> Window:
    """The window in which what a sentence says is looked for.

    By the findings it names, those it affirms first; where it names none, by its organs.
    """
    mentions = sorted(find_mentions(sentence), key=lambda each: each.status != "present")
    findings = [mention.finding for mention in mentions] or list(find_other_findings(sentence))
    if findings:
        if findings[0] == "Fracture":
            return BONE
        return SOFT_TISSUE if findings[0] in _IN_SOFT_TISSUE else LUNG
    if _BONE_WORDS.search(sentence):
        return BONE
    return SOFT_TISSUE if _SOFT_TISSUE_WORDS.search(sentence) else LUNG


def places_of(
    scan: ShownScan, affine: Affine, sentences: Mapping[int, SentenceRow]
) -> dict[int, Place]:
    """Where each numbered sentence rests, of those that rest on slices.

    Args:
        affine: Of the voxels in which places are told.
    """
    return {
        number: _place(scan, affine, number, row) for number, row in sentences.items() if row.slices
    }


def _place(scan: ShownScan, affine: Affine, number: int, row: SentenceRow) -> Place:
    box_px, box_mm = row.slices[0].box_px, row.slices[0].box_mm
    if box_mm is None:
        low, high = _edges(scan, np.linalg.inv(affine) @ scan.frame_to_ras, row)
    else:
        low, high = bounds_in(np.linalg.inv(affine), zip(*box_mm, strict=True)).T
    whole = np.array(scan.volume.shape_xyz) - 0.5
    if box_px is None:
        low[:2], high[:2] = -0.5, whole[:2]
    return Place(
        number,
        printable(row.text),
        reading_window(row.text).name,
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
        box_px is not None,
        slice_in(scan, affine, row.slices[0].slice_index),
    )


def _edges(
    scan: ShownScan, to_voxel: Float64[np.ndarray, "4 4"], row: SentenceRow
) -> Float64[np.ndarray, "2 3"]:
    """Lower and upper corner of what a sentence rests on, by the frames that show it."""
    reach = [
        (each.slice_index - 0.5, each.slice_index + 0.5)
        if each.number is None
        else scan.reach_z[each.number - 1]
        for each in row.slices
    ]
    z = min(low for low, _ in reach), max(high for _, high in reach)
    left, top, right, bottom = row.slices[0].box_px or (0, 0, 0, 0)
    ends = (left - 0.5, right - 0.5), (top - 0.5, bottom - 0.5), z
    return bounds_in(to_voxel, ends).T


def slice_in(scan: ShownScan, affine: Affine, slice_index: int) -> int:
    """The z index, among voxels with this affine, of one of the report's slices."""
    to_voxel = np.linalg.inv(affine) @ scan.frame_to_ras
    return round(float((to_voxel @ [0.0, 0.0, slice_index, 1.0])[2]))


def viewer_values(
    packed: PackedVolume, places: Sequence[Place], start_slice: int
) -> dict[str, Any]:
    """What ``viewer.js`` reads, JSON-able."""
    width, height, _ = packed.shape_xyz
    return {
        "shape": list(packed.shape_xyz),
        "spacing_mm": list(spacing_of(packed.affine)),
        "affine": packed.affine.tolist(),
        "step": packed.step,
        "slab_depth": DEPTH,
        "levels": LEVELS,
        "lowest_hu": AIR_HU,
        "highest_hu": METAL_HU,
        "bar_mm": BAR_MM,
        "windows": [asdict(window) for window in VIEWER_WINDOWS],
        "start": [width // 2, height // 2, start_slice],
        "places": [asdict(place) for place in places],
    }


def told_of(packed: PackedVolume, source: CTVolume) -> tuple[str, ...]:
    """In sentences, how what the page shows differs from the scan."""
    told = []
    if packed.coarser:
        found = " × ".join(f"{mm:.2f}" for mm in spacing_of(packed.affine))
        wanted = " × ".join(f"{mm:.2f}" for mm in source.spacing_mm)
        told.append(
            f"Coarser than the scan: voxels of {found} mm instead of {wanted} mm, so that the page "
            "stays small."
        )
    if packed.step > 1:
        told.append(
            "All slices and pixels of the scan are here, but so that the page stays small their "
            f"noise is smoothed: voxels differ from the scan's by {packed.error_hu:.0f} HU (root "
            "mean square). Judge fine texture on the scan itself."
        )
    axes = packed.affine[:3, :3] / np.array(spacing_of(packed.affine))
    degrees = float(np.degrees(np.arccos(np.clip(np.diag(axes).min(), -1, 1))))
    if degrees > _STRAIGHT_DEGREES:
        told.append(
            f"Planes follow the scan's own axes, which are turned by {degrees:.0f} degrees from "
            "the patient's."
        )
    return tuple(told)
