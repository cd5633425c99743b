"""A volume → its slices on a grid of another spacing (paper, Eq. 2): trilinear, half-pixel.

Equal to ``torch.nn.functional.interpolate(mode="trilinear", align_corners=False)`` on the same
output size, but slice by slice, so that the resampled volume is never held in memory. Plain
trilinear sampling, as in CT-CLIP, skips source slices where the target is coarser than the source;
``antialias`` widens the kernel to the target's voxel size there, as ``antialias=True`` in torch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from jaxtyping import Float32, Int

from ctscribe.base.types import SpacingMm
from ctscribe.scan.types import Affine
from ctscribe.scan.volume import CTVolume, spacing_of

_TOLERANCE_VOXELS = 1e-3
"""Headers hold float32, in which 0.7 mm is 0.69999999; without this a slice would be lost."""
Plane = Float32[np.ndarray, "y x"]


@final
@dataclass(frozen=True)
class Taps:
    """The source voxels that each output voxel reads along one axis, and their weights."""

    indices: Int[np.ndarray, "out taps"]
    weights: Float32[np.ndarray, "out taps"]

    @cached_property
    def is_identity(self) -> bool:
        """Whether each output voxel is the source voxel of the same index."""
        size = len(self.indices)
        first_alone = bool((self.weights[:, 0] == 1).all())
        return first_alone and np.array_equal(self.indices[:, 0], np.arange(size))

    def reversed(self, size: int) -> "Taps":
        """The same taps for a source whose axis of ``size`` voxels is flipped."""
        return Taps(size - 1 - self.indices, self.weights)


@final
@dataclass(frozen=True, slots=True)
class Resampling:
    """A volume on another grid, whose slices are computed on request.

    Attributes:
        source: The volume.
        shape_xyz: Shape of the output, floor(n · current / target) along each axis as in CT-CLIP.
        affine: Affine of the output. The grid covers the same extent as the source (voxel edges
            coincide), so the true spacing is n_in · current / n_out.
        taps_xyz: What the output reads along each axis.
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
        """Yields output slices [y, x] in HU, float32; each is overwritten by the next.

        For speed, planes are resampled before they are blended along z where the output has at
        least as many slices as the source, and after it otherwise; the result is the same.
        """
        planes, in_plane = self._along_memory()
        z = self.taps_xyz[2]
        if self.shape_xyz[2] < self.source.shape_xyz[2]:
            blended = _blended(planes.__getitem__, z, indices, planes.shape[1:])
            yield from map(in_plane, blended)
        else:
            once = lru_cache(maxsize=2)(lambda index: in_plane(planes[index]).copy())
            yield from _blended(once, z, indices, self.shape_xyz[1::-1])

    def stack(self, indices: range | tuple[int, ...]) -> Float32[np.ndarray, "x y slices"]:
        """Output slices stacked along z."""
        width, height, _ = self.shape_xyz
        out = np.empty((len(indices), height, width), dtype=np.float32)
        for target, plane in zip(out, self.slices(indices), strict=True):
            target[...] = plane
        return out.T

    def project(self, spans: Sequence[range]) -> Float32[np.ndarray, "x y spans"]:
        """Maximum over spans of source slices, then resampled in the plane.

        Blending slices first would lower the density of what only one source slice shows.

        Args:
            spans: z indices of the source for each output plane, none empty.
        """
        planes, in_plane = self._along_memory()
        width, height, _ = self.shape_xyz
        out = np.empty((len(spans), height, width), dtype=np.float32)
        for target, span in zip(out, spans, strict=True):
            target[...] = in_plane(planes[span.start : span.stop].max(axis=0))
        return out.T

    def _along_memory(self) -> tuple[np.ndarray, "_InPlane"]:
        """Source planes [z, y, x] in memory order, and the in-plane resampling for that order.

        Reading axes backwards would take twice as long.
        """
        planes = self.source.hu.T
        x, y, _ = self.taps_xyz
        if planes.strides[1] < 0:
            planes, y = planes[:, ::-1], y.reversed(planes.shape[1])
        if planes.strides[2] < 0:
            planes, x = planes[:, :, ::-1], x.reversed(planes.shape[2])
        return planes, _InPlane(y, x, planes.shape[1:])


def plan_resampling(
    volume: CTVolume, spacing_mm: SpacingMm, *, antialias: bool = False
) -> Resampling:
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
    affine = scale_voxels(volume.affine, scales)
    return Resampling(volume, (shape[0], shape[1], shape[2]), affine, (taps[0], taps[1], taps[2]))


def stretch(volume: CTVolume, shape_xyz: tuple[int, int, int], affine: Affine) -> CTVolume:
    """Stretches a volume, edge to edge, over a grid of any shape and affine.

    Nothing is cropped or padded; lengths change with the field of view.

    Returns:
        int16 HU with this affine.
    """
    x, y, z = (
        _taps(size, out, antialias=True)
        for size, out in zip(volume.shape_xyz, shape_xyz, strict=True)
    )
    hu = Resampling(volume, shape_xyz, affine, (x, y, z)).stack(range(shape_xyz[2]))
    return CTVolume(np.rint(hu, out=hu).astype(np.int16), affine)


def scale_voxels(affine: Affine, scale: Sequence[float]) -> Affine:
    """The affine of the same field of view with voxels ``scale`` times as long along each axis."""
    wider, scales = affine.copy(), np.array(scale)
    wider[:3, :3] = affine[:3, :3] * scales
    wider[:3, 3] += affine[:3, :3] @ (0.5 * scales - 0.5)
    return wider


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


@final
class _InPlane:
    """Resamples both in-plane axes of a slice, in buffers that are reused for every slice.

    Allocating new arrays would cost more time in page faults than the arithmetic.
    """

    def __init__(self, y: Taps, x: Taps, shape: tuple[int, int]) -> None:
        self._y, self._x = y, x
        height, width = len(y.indices), len(x.indices)
        self._source = np.empty(shape, dtype=np.float32)
        self._rows = [np.empty((height, shape[1]), dtype=np.float32) for _ in range(2)]
        self._both = [np.empty((height, width), dtype=np.float32) for _ in range(2)]

    def __call__(self, plane: np.ndarray) -> Plane:
        if plane.dtype != np.float32:
            np.copyto(self._source, plane)
            plane = self._source
        if not self._y.is_identity:
            plane = _weigh(plane, self._y, 0, self._rows)
        return plane if self._x.is_identity else _weigh(plane, self._x, 1, self._both)


def _weigh(plane: np.ndarray, taps: Taps, axis: int, buffers: Sequence[np.ndarray]) -> np.ndarray:
    """Applies one axis' taps to a plane [y, x]; the result lies in the first buffer."""
    result, more = buffers
    shape = (-1, 1) if axis == 0 else (1, -1)
    np.take(plane, taps.indices[:, 0], axis=axis, out=result, mode="clip")
    result *= taps.weights[:, 0].reshape(shape)
    for index, weight in zip(taps.indices.T[1:], taps.weights.T[1:], strict=True):
        np.take(plane, index, axis=axis, out=more, mode="clip")
        more *= weight.reshape(shape)
        result += more
    return result


def _blended(
    plane_at: Callable[[int], np.ndarray],
    taps: Taps,
    indices: Iterable[int],
    shape: tuple[int, int],
) -> Iterator[Plane]:
    """Weighted sums of planes, each overwritten by the next."""
    result, more = np.empty((2, *shape), dtype=np.float32)
    for index in indices:
        (first, weight), *others = zip(taps.indices[index], taps.weights[index], strict=True)
        np.multiply(plane_at(int(first)), weight, out=result)
        for other, weight in others:
            if weight:
                np.multiply(plane_at(int(other)), weight, out=more)
                result += more
        yield result
