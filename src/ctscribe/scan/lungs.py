"""A volume → the range of slices that show the lungs, and evenly spread slices in it.

In: a `CTVolume` in RAS orientation. Out: z indices.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.volume import CTVolume

_COARSE_MM = (5.0, 5.0, 3.0)
_AIR_BELOW_HU = -500
_GAS_BELOW_HU = -960
"""A cavity with a lower median is filled with gas, such as bowel; even emphysema has tissue."""
_MIN_LUNG_ML = 500.0
_MIN_PIECE_ML = 50.0
_OTHER_LUNG_SHARE = 0.1
_MIN_AREA_MM2 = 500.0
_MIN_AREA_SHARE = 0.03


@final
@dataclass(frozen=True, slots=True)
class Lungs:
    """The extent of the lungs along z.

    Attributes:
        first: Lowest z index that shows them.
        last: Highest z index that shows them.
        found: False when nothing looks like lungs; the extent is then the whole volume's.
    """

    first: int
    last: int
    found: bool


def find_lungs(volume: CTVolume) -> Lungs:
    """Finds the lungs' extent along z by a threshold, on voxels of about 5 × 5 × 3 mm.

    Air that touches the sides of an axial slice is outside the patient. Of the other cavities, the
    largest that is not pure gas is a lung, and so are those of at least a tenth of its size whose
    z ranges overlap with it. Slices with a smaller area of lung than 5 cm² or 3 % of the largest,
    such as the trachea above the apices, are left out.

    Args:
        volume: In RAS orientation, padding already turned into air.
    """
    steps = [
        max(1, round(wanted / mm)) for wanted, mm in zip(_COARSE_MM, volume.spacing_mm, strict=True)
    ]
    coarse = volume.hu[:: steps[0], :: steps[1], :: steps[2]]
    voxel_mm = [mm * step for mm, step in zip(volume.spacing_mm, steps, strict=True)]
    mask = _lung_mask(coarse.T, float(np.prod(voxel_mm)) / 1000)
    areas = mask.sum(axis=(1, 2)) * voxel_mm[0] * voxel_mm[1]
    shown = np.flatnonzero(areas >= max(_MIN_AREA_MM2, _MIN_AREA_SHARE * areas.max()))
    depth = volume.shape_xyz[2]
    if shown.size == 0:
        return Lungs(0, depth - 1, found=False)
    last = min(depth - 1, int(shown[-1]) * steps[2] + steps[2] // 2)
    return Lungs(int(shown[0]) * steps[2], last, found=True)


def spread_slices(extent: tuple[int, int], num_slices: int, depth: int) -> tuple[int, ...]:
    """Divides an extent into equal parts and returns the slices at their centres, highest first.

    An extent with fewer slices than wanted is widened on both sides, within the volume.

    Args:
        extent: First and last z index, inclusive.
        num_slices: How many to choose.
        depth: Slices of the volume.

    Raises:
        CtscribeError: ``E_TOO_FEW_SLICES`` when the volume has fewer than wanted.
    """
    if depth < num_slices:
        raise CtscribeError(
            "E_TOO_FEW_SLICES",
            f"a volume must have at least the {num_slices} slices that are shown, but has {depth}",
        )
    first, last = extent
    lacking = max(0, num_slices - (last - first + 1))
    first = min(max(0, first - (lacking + 1) // 2), depth - num_slices) if lacking else first
    count = max(last - first + 1, num_slices)
    centres = first + (np.arange(num_slices) + 0.5) * count / num_slices - 0.5
    indices = np.floor(centres + 0.5).astype(int)
    return tuple(int(index) for index in indices[::-1])


def _lung_mask(coarse_zyx: np.ndarray, voxel_ml: float) -> Bool[np.ndarray, "z y x"]:
    """Mask of the lungs in HU [z, y, x]; all false if they hold less than half a litre."""
    air = coarse_zyx < _AIR_BELOW_HU
    cavities = air & ~_outside(air)
    labels, count = ndimage.label(cavities)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    lungs = np.zeros(cavities.shape, dtype=bool)
    extent: tuple[int, int] | None = None
    largest = 0
    places = ndimage.find_objects(labels)
    for label in np.argsort(-sizes, kind="stable")[:8]:
        size = int(sizes[label])
        if size * voxel_ml < _MIN_PIECE_ML or size < _OTHER_LUNG_SHARE * largest:
            break
        place = places[label - 1]
        member = labels[place] == label
        if np.median(coarse_zyx[place][member]) < _GAS_BELOW_HU:
            continue
        low, high = place[0].start, place[0].stop
        if extent is None:
            extent, largest = (low, high), size
        elif high <= extent[0] or low >= extent[1]:
            continue
        lungs[place] |= member
    return lungs if lungs.sum() * voxel_ml >= _MIN_LUNG_ML else np.zeros_like(lungs)


def _outside(air: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Air that is connected, within an axial slice, to a side of the slice."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(air, structure=in_plane)
    outside = np.zeros(count + 1, dtype=bool)
    for side in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        outside[side.ravel()] = True
    outside[0] = False
    return np.asarray(outside[labels])
