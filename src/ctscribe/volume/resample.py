"""Resampling onto another spacing (paper, Eq. 2): trilinear, half-pixel grid.

Equal to ``torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`` on the
same output size, but one slice at a time, so that it needs little memory and can give single
slices of a volume that is never built. Plain trilinear sampling, as CT-CLIP does it, skips
source slices when the target is coarser than the source; ``antialias`` widens the kernel to
the target's voxel size there, as ``antialias=True`` does for images in torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Float32, Int

from ctscribe.types import Affine, SpacingMm
from ctscribe.volume.ct import CTVolume, spacing_of

_TOLERANCE_VOXELS = 1e-3
"""Headers hold float32, so 0.7 mm comes as 0.69999999; without this a slice would be lost."""

Plane = Float32[np.ndarray, "y x"]


@final
@dataclass(frozen=True, slots=True)
class Taps:
    """Along one axis: which source voxels an output voxel reads, and with which weights."""

    indices: Int[np.ndarray, "out taps"]
    weights: Float32[np.ndarray, "out taps"]


@final
@dataclass(frozen=True, slots=True)
class Resampling:
    """A volume on another grid, computed slice by slice when asked for.

    Attributes:
        source: The volume.
        shape_xyz: Of the output; floor(n · current / target) along each axis, as CT-CLIP's.
        affine: Of the output. The grid covers the same extent as the source (voxel edges
            coincide), so the true spacing is n_in · current / n_out.
    """

    source: CTVolume
    shape_xyz: tuple[int, int, int]
    affine: Affine
    taps_xyz: tuple[Taps, Taps, Taps]

    @property
    def spacing_mm(self) -> SpacingMm:
        """True voxel size of the output along (x, y, z)."""
        return spacing_of(self.affine)

    def slices(self, indices: range | tuple[int, ...]) -> Iterator[Plane]:
        """Yields output slices [y, x] in HU, float32.

        The two in-plane axes go first where a source slice serves several output slices,
        last where slices are dropped; the result is the same.
        """
        x, y, z = self.taps_xyz
        hu_zyx = self.source.hu.T
        in_plane_first = self.shape_xyz[2] >= self.source.shape_xyz[2]

        @lru_cache(maxsize=2 if in_plane_first else 1)
        def plane(index: int) -> np.ndarray:
            read = hu_zyx[index].astype(np.float32)
            return _weigh(_weigh(read, y, 0), x, 1) if in_plane_first else read

        for index in indices:
            blend = _blend(
                [plane(int(i)) for i in z.indices[index]], [float(w) for w in z.weights[index]]
            )
            yield blend if in_plane_first else _weigh(_weigh(blend, y, 0), x, 1)

    def stack(self, indices: range | tuple[int, ...]) -> Float32[np.ndarray, "x y slices"]:
        """Output slices stacked along z."""
        width, height, _ = self.shape_xyz
        out = np.empty((len(indices), height, width), dtype=np.float32)
        for target, plane in zip(out, self.slices(indices), strict=True):
            target[...] = plane
        return out.T


def plan(volume: CTVolume, spacing_mm: SpacingMm, *, antialias: bool = False) -> Resampling:
    """Lays the output grid without computing any voxel.

    Args:
        volume: The source, in any orientation.
        spacing_mm: Wanted voxel size along the volume's own (x, y, z).
        antialias: Average over the target's voxel size where it is coarser than the source's.
    """
    scales, shape, taps = [], [], []
    for size, current, target in zip(volume.shape_xyz, volume.spacing_mm, spacing_mm, strict=True):
        out = max(1, int(size * current / target + _TOLERANCE_VOXELS))
        shape.append(out)
        scales.append(size / out)
        taps.append(_taps(size, out, antialias=antialias))
    scale = np.array(scales)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * scale
    affine[:3, 3] += volume.affine[:3, :3] @ (0.5 * scale - 0.5)
    return Resampling(volume, (shape[0], shape[1], shape[2]), affine, (taps[0], taps[1], taps[2]))


def resample(volume: CTVolume, spacing_mm: SpacingMm, *, antialias: bool = False) -> CTVolume:
    """Resamples a whole volume; float32 HU, or the volume itself when the grid is the same."""
    planned = plan(volume, spacing_mm, antialias=antialias)
    if planned.shape_xyz == volume.shape_xyz:
        return volume
    return CTVolume(planned.stack(range(planned.shape_xyz[2])), planned.affine)


def _taps(size: int, out: int, *, antialias: bool) -> Taps:
    scale = size / out
    centre = (np.arange(out) + 0.5) * scale - 0.5
    if not antialias or scale <= 1:
        centre = np.maximum(centre, 0)
        lower = np.minimum(centre.astype(np.int64), size - 1)
        upper = np.minimum(lower + 1, size - 1)
        weight = centre - lower
        weights = np.stack([1 - weight, weight], axis=1)
        return Taps(np.stack([lower, upper], axis=1), weights.astype(np.float32))
    reach = int(np.ceil(scale))
    indices = np.floor(centre).astype(np.int64)[:, None] + np.arange(-reach + 1, reach + 1)
    weights = np.maximum(0, 1 - np.abs(indices - centre[:, None]) / scale)
    weights[(indices < 0) | (indices >= size)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(indices, 0, size - 1), weights.astype(np.float32))


def _weigh(plane: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    """Applies one axis' taps to a plane [y, x]."""
    if plane.shape[axis] == len(taps.indices):
        return plane
    shape = (-1, 1) if axis == 0 else (1, -1)
    result = np.take(plane, taps.indices[:, 0], axis=axis)
    result *= taps.weights[:, 0].reshape(shape)
    for index, weight in zip(taps.indices.T[1:], taps.weights.T[1:], strict=True):
        more = np.take(plane, index, axis=axis)
        more *= weight.reshape(shape)
        result += more
    return result


def _blend(planes: list[np.ndarray], weights: list[float]) -> np.ndarray:
    result = planes[0] * np.float32(weights[0])
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        if weight:
            result += plane * np.float32(weight)
    return result
