"""Lesions in frames → healthy tissue of the same image, without a seam.

A lesion's section is replaced by a copy of other tissue of the same frame or of its mirror image
(the other lung): the place whose surroundings fit the lesion's own surroundings best and whose
inside looks as they suggest. The small difference that is left along the rim is continued
smoothly into the copy, as a solution of Laplace's equation (Pérez et al., Poisson image editing,
2003, with a smoothed rim). Noise and vessels are the image's own, so neither grain nor edges give
the place away. Frames are healed one by one: neighbouring ones lie too far apart to share tissue.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage, signal, sparse
from scipy.sparse.linalg import spsolve

from ctscribe.types import Frames

RIM_PX = 4
"""Width of the surroundings that are compared and joined."""
_INSIDE_WEIGHT = 0.5
_LUNG_PERCENTILE = 30
"""Of the rim: lung, even where a lesion lies against the chest wall or beside vessels."""
_SMOOTH_PX = 1.5
_ALIKE_GREY = 25

_LUNG_BELOW_GREY = 64
"""−500 HU in the wide window, which the first channel shows in every choice of windows."""

Image = Float32[np.ndarray, "height width channels"]
Mask = Bool[np.ndarray, "height width"]
Window = Float32[np.ndarray, "rows columns channels"]
WindowMask = Bool[np.ndarray, "rows columns"]


def heal_frames(
    frames: Frames,
    lesions: Bool[np.ndarray, "slices height width"],
    avoided: Bool[np.ndarray, "slices height width"],
) -> Frames:
    """Replaces what ``lesions`` covers; every other pixel stays as it is.

    Args:
        frames: The study's.
        lesions: What to replace.
        avoided: Where no tissue may be taken from, such as other lesions.
    """
    healed = np.array(frames)
    for frame, masks, kept in zip(healed, lesions, avoided, strict=True):
        parts, count = ndimage.label(masks, structure=np.ones((3, 3)))
        for part in range(1, count + 1):
            image = frame.astype(np.float32)
            filled = _heal(image, parts == part, masks | kept | _outside(frame))
            frame[parts == part] = np.rint(np.clip(filled, 0, 255)).astype(np.uint8)
    return healed


def lung_around(
    frames: Frames, lesion: Bool[np.ndarray, "slices height width"]
) -> Float64[np.ndarray, "shown"]:
    """Share of lung in the lesion's surroundings, for each frame that shows it."""
    shares = []
    for frame, mask in zip(frames, lesion, strict=True):
        if mask.any():
            rim = ndimage.binary_dilation(mask, iterations=RIM_PX) & ~mask
            shares.append((frame[..., 0][rim] < _LUNG_BELOW_GREY).mean() if rim.any() else 0.0)
    return np.array(shares)


def _outside(frame: UInt8[np.ndarray, "height width channels"]) -> Mask:
    """Air and table around the body, which is the largest dense part with all that it encloses."""
    parts, count = ndimage.label(frame[..., 0] >= _LUNG_BELOW_GREY)
    if not count:
        return np.zeros(parts.shape, dtype=bool)
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return np.asarray(~ndimage.binary_fill_holes(parts == largest))


def _heal(image: Image, lesion: Mask, avoided: Mask) -> Float32[np.ndarray, "pixels channels"]:
    """New values of a lesion's pixels, in the order of ``image[lesion]``."""
    rows, columns = np.flatnonzero(lesion.any(1)), np.flatnonzero(lesion.any(0))
    height, width = lesion.shape
    window = (
        slice(max(0, rows[0] - RIM_PX), min(height, rows[-1] + 1 + RIM_PX)),
        slice(max(0, columns[0] - RIM_PX), min(width, columns[-1] + 1 + RIM_PX)),
    )
    inside = lesion[window]
    around = ndimage.binary_dilation(inside, iterations=RIM_PX) & ~inside
    rim = around & ~avoided[window]
    if not rim.any():
        rim = around
    source = _best_source(image, avoided, _smooth(image[window], rim), rim, inside)
    apart = _smooth(image[window] - source, rim)
    # Where another structure meets the rim, its density must not be smeared into the lung.
    alike = rim & (np.abs(apart).max(axis=2) < _ALIKE_GREY)
    correction = _continue(apart, alike, inside) if alike.any() else np.zeros_like(apart)
    return np.asarray((source + correction)[inside])


def _best_source(
    image: Image, avoided: Mask, target: Window, rim: WindowMask, inside: WindowMask
) -> Window:
    """The window of the image or its mirror image that fits best and holds nothing avoided.

    Smoothed images are compared, or else the least noisy places would fit best.
    """
    weights = rim / rim.sum() + _INSIDE_WEIGHT * inside / inside.sum()
    wanted = target.mean(axis=2)
    wanted[inside] = np.percentile(wanted[rim], _LUNG_PERCENTILE)
    best = (np.inf, target)
    for forbidden in (avoided, np.zeros_like(avoided)):
        for whole, no_go in ((image, forbidden), (image[:, ::-1], forbidden[:, ::-1])):
            grey = ndimage.gaussian_filter(whole.mean(axis=2), _SMOOTH_PX)
            misfit = _slide(grey**2, weights) - 2 * _slide(grey, weights * wanted)
            taken = _slide(no_go.astype(np.float32), inside.astype(np.float32)) > 0.5
            misfit[taken] = np.inf
            row, column = np.unravel_index(np.argmin(misfit), misfit.shape)
            if misfit[row, column] < best[0]:
                here = (slice(row, row + rim.shape[0]), slice(column, column + rim.shape[1]))
                best = (float(misfit[row, column]), whole[here])
        if np.isfinite(best[0]):
            break
    return best[1]


def _slide(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.asarray(signal.correlate(image, kernel, mode="valid", method="fft"))


def _smooth(values: Window, rim: WindowMask) -> Window:
    """Averages over the rim's neighbouring pixels, so that its noise is not continued."""
    weight = ndimage.gaussian_filter(rim.astype(np.float32), _SMOOTH_PX)
    summed = ndimage.gaussian_filter(values * rim[..., None], (_SMOOTH_PX, _SMOOTH_PX, 0))
    return np.asarray(summed / np.maximum(weight, 1e-6)[..., None], np.float32)


def _continue(values: Window, rim: WindowMask, inside: WindowMask) -> Window:
    """Values on the rim, and inside what solves Laplace's equation with them as its border.

    Pixels of neither are not looked at and stay 0.
    """
    known = np.where(rim[..., None], values, 0).astype(np.float32)
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    rows, columns, degree = [], [], np.zeros(inside.sum())
    border = np.zeros((int(inside.sum()), values.shape[2]))
    padded_number, padded_rim = np.pad(number, 1, constant_values=-1), np.pad(rim & ~inside, 1)
    padded_known = np.pad(known, ((1, 1), (1, 1), (0, 0)))
    at = np.argwhere(inside) + 1
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        there = tuple((at + step).T)
        neighbour, on_rim = padded_number[there], padded_rim[there]
        degree += (neighbour >= 0) | on_rim
        border += np.where(on_rim[:, None], padded_known[there], 0)
        rows.append(np.flatnonzero(neighbour >= 0))
        columns.append(neighbour[neighbour >= 0])
    links = sparse.coo_matrix(
        (np.ones(sum(map(len, rows))), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(degree), len(degree)),
    )
    laplacian = sparse.diags(degree + 1e-6) - links
    solved = spsolve(laplacian.tocsc(), border + 1e-6 * known[rim].mean(axis=0))
    known[inside] = solved.reshape(border.shape)
    return known
