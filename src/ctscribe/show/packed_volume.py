"""Compresses a CT volume into text for an HTML page, within a budget of bytes.

In: a volume in RAS orientation. Out: `PackedVolume`, which ``viewer.js`` unpacks as `unpack` does.

Slabs of slices go through the reversible 5/3 wavelet of JPEG 2000 along all three axes. The
coefficients are quantised (the step is halved for each coarser level), packed into 2, 4 or 8 bits,
and deflated. A step of 1 is lossless. A larger one keeps sizes, places and mean densities and
smooths noise, which takes most of the bits of a thin slice.
"""

import base64
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, prod
from typing import final

import numpy as np
from isal import isal_zlib
from jaxtyping import Int16, Int32, UInt16

from ctscribe.base.types import SpacingMm
from ctscribe.scan.intensity import AIR_HU, METAL_HU
from ctscribe.scan.resample import plan_resampling
from ctscribe.scan.types import Affine
from ctscribe.scan.volume import CTVolume

DEPTH, LEVELS = 8, 4
"""Slices per slab, and levels of the wavelet."""
MOST_VOXELS = 1 << 27
"""512 × 512 × 512; more would not fit into a browser's memory."""
STEPS = tuple(sorted({round(2 ** (power / 8)) for power in range(97)}))
"""Quantisation steps, of which the finest that fits is chosen; up to the whole range of HU."""
_SAMPLED = 6
"""Slabs from which the size and the error of the whole volume are estimated."""
_THREADS = 2
_MOST_OVERFLOW = 0.2
"""Share of a band's codes that may overflow its bit width."""

SlabHu = Int16[np.ndarray, "_ _ _"]
Coefficients = Int32[np.ndarray, "_ _ _"]
Codes = UInt16[np.ndarray, "_"]


@final
@dataclass(frozen=True)
class PackedVolume:
    """A compressed volume, as a page contains it.

    Args:
        shape_xyz: Voxels along the affine's axes.
        affine: Voxel index → RAS+ mm.
        step: Quantisation step of the finest coefficients; 1 is lossless.
        error_hu: Estimated root mean square error of the voxels.
        coarser: Whether voxels are larger than the source's.
        slabs: base64 of `DEPTH` slices each, most caudal first.
    """

    shape_xyz: tuple[int, int, int]
    affine: Affine
    step: int
    error_hu: float
    coarser: bool
    slabs: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Length of its text."""
        return sum(map(len, self.slabs))


def pack(volume: CTVolume, budget_bytes: int) -> PackedVolume:
    """Packs a volume with the finest step that keeps its text within the budget.

    HU are rounded and limited to `AIR_HU` … `METAL_HU`. One of more than `MOST_VOXELS` is
    averaged over larger voxels first. With the coarsest step the text may exceed the budget.
    """
    packed = _within_memory(volume)
    slabs = list(_slabs(packed))
    step = _finest_step(slabs, budget_bytes)
    with ThreadPoolExecutor(_THREADS) as pool:
        texts = list(pool.map(lambda slab: _encode(slab, step), slabs))
        while sum(map(len, texts)) > budget_bytes and step < STEPS[-1]:
            step = STEPS[STEPS.index(step) + 1]
            texts = list(pool.map(lambda slab, step=step: _encode(slab, step), slabs))
    return PackedVolume(
        packed.shape_xyz,
        packed.affine,
        step,
        _error_hu(slabs, texts, step),
        packed.shape_xyz != volume.shape_xyz,
        tuple(texts),
    )


def unpack(packed: PackedVolume) -> Int16[np.ndarray, "x y z"]:
    """The HU of a packed volume, to the bit what a browser makes of it."""
    width, height, depth = packed.shape_xyz
    out = np.empty((depth, height, width), dtype=np.int16)
    for number, text in enumerate(packed.slabs):
        slab = out[number * DEPTH : (number + 1) * DEPTH]
        slab[...] = _decode(text, slab.shape, packed.step)
    return out.T


def _within_memory(volume: CTVolume) -> CTVolume:
    """The volume, with voxels doubled along the finest axes until there are not too many."""
    spacing = np.array(volume.spacing_mm)
    wanted = spacing.copy()
    while prod(volume.shape_xyz) > MOST_VOXELS * prod(wanted / spacing):
        in_plane = wanted[:2].max() <= wanted[2]
        wanted[:2] *= 2 if in_plane else 1
        wanted[2] *= 1 if in_plane else 2
    if np.array_equal(wanted, spacing):
        return volume
    x, y, z = wanted.tolist()
    coarse: SpacingMm = (x, y, z)
    grid = plan_resampling(volume, coarse, antialias=True)
    return CTVolume(grid.stack(range(grid.shape_xyz[2])), grid.affine)


def _slabs(volume: CTVolume) -> Iterator[SlabHu]:
    planes = volume.hu.T
    for start in range(0, len(planes), DEPTH):
        limited = np.clip(planes[start : start + DEPTH], AIR_HU, METAL_HU)
        yield np.rint(limited).astype(np.int16) if limited.dtype.kind == "f" else limited


def _finest_step(slabs: Sequence[SlabHu], budget_bytes: int) -> int:
    """The finest step within the budget, by bisection on a sample of slabs."""
    chosen = slabs[:: ceil(len(slabs) / _SAMPLED)]
    share = sum(slab.size for slab in chosen) / sum(slab.size for slab in slabs)
    transformed = [_transform(slab) for slab in chosen]
    low, high = 0, len(STEPS) - 1
    while low < high:
        middle = (low + high) // 2
        size = sum(len(_pack_bits(_quantise(each, STEPS[middle]))) for each in transformed)
        if size * 4 / 3 <= budget_bytes * share:
            high = middle
        else:
            low = middle + 1
    return STEPS[low]


def _error_hu(slabs: Sequence[SlabHu], texts: Sequence[str], step: int) -> float:
    """Root mean square error, estimated on a sample of slabs."""
    if step == 1:
        return 0.0
    every = ceil(len(slabs) / _SAMPLED)
    squares = [
        np.square(_decode(text, slab.shape, step) - slab.astype(np.float32)).mean()
        for slab, text in zip(slabs[::every], texts[::every], strict=True)
    ]
    return float(np.sqrt(np.mean(squares)))


def _encode(slab: SlabHu, step: int) -> str:
    return base64.b64encode(_pack_bits(_quantise(_transform(slab), step))).decode()


def _decode(text: str, shape: tuple[int, ...], step: int) -> SlabHu:
    slab = np.empty(shape, dtype=np.int32)
    places = list(bands(shape))
    sizes = [slab[band].size for _, band in places]
    found = _unpack_bits(base64.b64decode(text), sizes)
    for (level, band), codes in zip(places, found, strict=True):
        whole = np.where(codes & 1, -((codes.astype(np.int32) + 1) >> 1), codes >> 1)
        slab[band] = (whole * _step_at(step, level)).reshape(slab[band].shape)
    for extent in reversed(_extents(shape)):
        corner = slab[tuple(map(slice, extent))]
        for axis in range(3):
            _join(np.moveaxis(corner, axis, 0))
    return np.clip(slab, AIR_HU, METAL_HU).astype(np.int16)


def bands(shape: Sequence[int]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """(level, slices along z, y, x) of each subband of a slab, in the order they are stored."""
    for level, extent in enumerate(_extents(shape)):
        halves = [(size + 1) // 2 for size in extent]
        for high in range(1, 8):
            yield (
                level,
                tuple(
                    slice(half, size) if high >> (2 - axis) & 1 else slice(half)
                    for axis, (half, size) in enumerate(zip(halves, extent, strict=True))
                ),
            )
    yield LEVELS, tuple(slice(half) for half in halves)


def _extents(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Extent of the low-pass corner that each level of the wavelet transforms."""
    return [tuple(-(-size >> level) for size in shape) for level in range(LEVELS)]


def _step_at(step: int, level: int) -> int:
    """The step at a level: halved per level, as coarser coefficients affect more voxels."""
    return max(1, step >> level)


def _transform(slab: SlabHu) -> Coefficients:
    out = slab.astype(np.int32)
    for extent in _extents(slab.shape):
        corner = out[tuple(map(slice, extent))]
        for axis in (2, 1, 0):
            _split(np.moveaxis(corner, axis, 0))
    return out


def _split(line: np.ndarray) -> None:
    """One lifting step of the 5/3 wavelet along the first axis, in place: low-pass half first."""
    if len(line) < 2:
        return
    even, odd = line[::2].copy(), line[1::2].copy()
    following = np.concatenate([even[1:], even[-1:]])[: len(odd)]
    odd -= (even[: len(odd)] + following) >> 1
    even += (_before(odd, len(even)) + _after(odd, len(even)) + 2) >> 2
    line[: len(even)], line[len(even) :] = even, odd


def _join(line: np.ndarray) -> None:
    """Inverse of `_split`."""
    if len(line) < 2:
        return
    half = (len(line) + 1) // 2
    even, odd = line[:half].copy(), line[half:].copy()
    even -= (_before(odd, half) + _after(odd, half) + 2) >> 2
    following = np.concatenate([even[1:], even[-1:]])[: len(odd)]
    line[::2] = even
    line[1::2] = odd + ((even[: len(odd)] + following) >> 1)


def _before(odd: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([odd[:1], odd])[:count]


def _after(odd: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([odd, odd[-1:]])[:count]


def _quantise(slab: Coefficients, step: int) -> list[Codes]:
    """Quantises each subband with a dead zone; 0, −1, 1, −2, 2 become the codes 0, 1, 2, 3, 4."""
    codes = []
    for level, band in bands(slab.shape):
        part, size = slab[band].ravel(), _step_at(step, level)
        whole = np.abs(part) if size == 1 else (np.abs(part) + int(0.4 * size)) // size
        codes.append((2 * whole - ((part < 0) & (whole > 0))).astype(np.uint16))
    return codes


def _pack_bits(codes: Sequence[Codes]) -> bytes:
    """Deflates the subbands: their bit widths, all codes in these widths, then the overflows.

    A code that is at least the largest number of its width is stored as that number, and its excess
    follows as an overflow in one byte. An excess of 255 or more is stored as 255 there, and again
    in two bytes at the end, in reverse order.
    """
    widths = [_width(band) for band in codes]
    parts = [bytes(widths), *map(_in_bits, codes, widths)]
    rests = [band[band >= top] - top for band, top in zip(codes, map(_top, widths), strict=True)]
    rest = np.concatenate(rests)
    parts += [np.minimum(rest, 255).astype(np.uint8).tobytes()]
    parts += [rest[rest >= 255][::-1].astype("<u2").tobytes()]
    return bytes(isal_zlib.compress(b"".join(parts)))


def _width(band: Codes) -> int:
    """Bits per code of a subband: 2 or 4 where few codes overflow, else 8."""
    most = _MOST_OVERFLOW * band.size
    return next((bits for bits in (2, 4) if np.sum(band >= _top(bits)) <= most), 8)


def _top(width: int) -> int:
    return (1 << width) - 1


def _in_bits(band: Codes, width: int) -> bytes:
    per_byte = 8 // width
    small = np.zeros(-(-band.size // per_byte) * per_byte, dtype=np.uint8)
    small[: band.size] = np.minimum(band, _top(width))
    packed = small[::per_byte].copy()
    for place in range(1, per_byte):
        packed |= small[place::per_byte] << (place * width)
    return packed.tobytes()


def _unpack_bits(content: bytes, sizes: Sequence[int]) -> list[Codes]:
    content = zlib.decompress(content)
    start, codes = len(sizes), []
    for size, width in zip(sizes, content[: len(sizes)], strict=True):
        packed = np.frombuffer(content, np.uint8, -(-size * width // 8), start)
        fields = [packed >> shift & _top(width) for shift in range(0, 8, width)]
        codes.append(np.stack(fields, axis=1).ravel()[:size].astype(np.uint16))
        start += packed.size
    every = np.concatenate(codes)
    tops = np.repeat(np.array([_top(width) for width in content[: len(sizes)]]), sizes)
    large = np.flatnonzero(every == tops)
    rest = np.frombuffer(content, np.uint8, large.size, start).astype(np.uint16)
    rest[rest == 255] = np.frombuffer(content, "<u2", offset=start + large.size)[::-1]
    every[large] += rest
    return np.split(every, np.cumsum(sizes)[:-1])
