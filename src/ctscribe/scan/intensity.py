"""Stored values → Hounsfield units within [−1024, 3071] (paper, Eq. 1) → normalised values (Eq. 3).

In: values [x, y, z] as a file stores them. Out: HU with padding as air, and notes of what was done.
"""

import numpy as np
from jaxtyping import Float32, Real

from ctscribe.base.errors import CtscribeError
from ctscribe.base.types import Intensity
from ctscribe.scan.types import VolumeHu
from ctscribe.scan.volume import Notes, note, note_changed

Rescale = tuple[float, float]
"""Slope and intercept of Eq. 1."""
AIR_HU = -1024
"""The lowest value of 12-bit scanners; no tissue is less dense."""
METAL_HU = 3071
"""The highest value of 12-bit scanners; on scanners with a wider scale only metal exceeds it."""
PADDING_HU = -1500
"""Values below mark voxels outside the scan (−2000, −2048, −3024, −8192); noise stays above."""
_SAMPLE_VOXELS = 100_000


def to_hu(
    values: VolumeHu, eq1: Rescale | None, mode: Intensity, study: str
) -> tuple[VolumeHu, Notes]:
    """Turns stored values into Hounsfield units, rescaling at most once.

    Args:
        values: As stored; overwritten.
        eq1: Slope and intercept of the metadata, None where there are none.
        mode: raw applies slope and intercept, hu applies nothing, auto decides by histogram.
        study: Name for errors.

    Returns:
        HU within [−1024, 3071], and notes whose detail ``intensity`` says how the values were
        read, raw or hu.

    Raises:
        CtscribeError: ``E_HU_AMBIGUOUS``, ``E_NO_RESCALE`` or ``E_NOT_HU``.
    """
    raw = is_raw(values, eq1, mode, study)
    if raw and eq1 is not None:
        values = rescale(values, eq1)
    hu, notes = clip_hu(values)
    return hu, notes | note(intensity="raw" if raw else "hu")


def is_raw(
    values: Real[np.ndarray, "x y z"], eq1: Rescale | None, mode: Intensity, study: str
) -> bool:
    """Whether slope and intercept still have to be applied.

    Both possibilities are tried on a sample of voxels. Exactly one must look like CT in HU: some
    air or lung, some soft tissue, and hardly anything as dense as cortical bone. Raw values have
    soft tissue near 1000; values that are rescaled twice have none.

    Raises:
        CtscribeError: ``E_HU_AMBIGUOUS``, ``E_NO_RESCALE`` or ``E_NOT_HU``.
    """
    step = max(1, round((values.size / _SAMPLE_VOXELS) ** (1 / 3)))
    sample = values[::step, ::step, ::step].astype(np.float32)
    if mode == "raw" and eq1 is None:
        raise CtscribeError(
            "E_NO_RESCALE",
            f"{study} must have a rescale slope and intercept in its metadata to be read as raw "
            "values, but has none",
        )
    as_stored = _looks_like_hu(sample)
    rescaled = eq1 is not None and _looks_like_hu(sample * eq1[0] + eq1[1])
    if mode == "auto" and as_stored and rescaled and eq1 != (1.0, 0.0):
        raise CtscribeError(
            "E_HU_AMBIGUOUS",
            f"{study} must be either raw or in Hounsfield units, but looks plausible as both",
        )
    raw = mode == "raw" or (mode == "auto" and rescaled)
    if not (rescaled if raw else as_stored):
        raise CtscribeError(
            "E_NOT_HU",
            f"{study} must show air near -1000 and soft tissue near 0 Hounsfield units, but "
            f"{_guess(sample, raw)}",
        )
    return raw


def rescale(values: VolumeHu, eq1: Rescale) -> VolumeHu:
    """Eq. 1 without integer overflow; int16 values are overwritten.

    int16 stays int16 if slope and intercept are whole numbers; all else gives float32.
    """
    slope, intercept = eq1
    if values.dtype == np.int16 and slope.is_integer() and intercept.is_integer():
        for plane in values.T:
            wide = plane.astype(np.int32) * int(slope) + int(intercept)
            plane[...] = np.clip(wide, -32768, 32767)
        return values
    hu = values.astype(np.float32)
    hu *= np.float32(slope)
    hu += np.float32(intercept)
    return hu


def clip_hu(hu: VolumeHu) -> tuple[VolumeHu, Notes]:
    """Clips a volume to [`AIR_HU`, `METAL_HU`] in place.

    This is done before interpolation, which would smear padding and metal into the body.

    Returns:
        The volume; ``W_PADDING`` with the number of voxels below −1500 HU, and ``W_METAL`` with
        that of voxels above 3071 HU.
    """
    padding = metal = 0
    for plane in hu.T:  # one plane at a time, which stays in the processor's cache
        lowest, highest = plane.min(), plane.max()
        if lowest < PADDING_HU:
            padding += int(np.count_nonzero(plane < PADDING_HU))
        if highest > METAL_HU:
            metal += int(np.count_nonzero(plane > METAL_HU))
        if lowest < AIR_HU or highest > METAL_HU:
            np.clip(plane, AIR_HU, METAL_HU, out=plane)
    return hu, note_changed(W_PADDING=padding, W_METAL=metal)


def normalise(
    hu: Real[np.ndarray, "*shape"], out: Float32[np.ndarray, "*shape"] | None = None
) -> Float32[np.ndarray, "*shape"]:
    """Eq. 3: clips to [−1000, 1000] HU and divides by 1000; writes into ``out`` if given."""
    low, high = np.float32(-1000), np.float32(1000)
    clipped: Float32[np.ndarray, "*shape"] = np.clip(hu, low, high, out=out, dtype=np.float32)
    clipped /= high
    return clipped


def _looks_like_hu(sample: np.ndarray) -> bool:
    inside = sample[sample > PADDING_HU]
    if inside.size < 0.05 * sample.size:
        return False
    air_or_lung = np.mean((inside >= -1100) & (inside <= -500))
    soft_tissue = np.mean((inside >= -200) & (inside <= 200))
    dense = np.mean(inside > 700)
    return bool(air_or_lung >= 0.005 and soft_tissue >= 0.03 and dense <= 0.05)


def _guess(sample: np.ndarray, raw: bool) -> str:
    low, high = float(sample.min()), float(sample.max())
    if raw:
        return "after slope and intercept it does not"
    if low >= -1 and high <= 1:
        return "its values lie within [-1, 1] as after normalisation"
    if low >= 0 and high <= 255:
        return "its values lie within [0, 255] as in a picture"
    if low >= 0 and high <= 65535:
        return f"its values lie within [{low:.0f}, {high:.0f}] as before rescaling"
    return f"its values lie within [{low:.0f}, {high:.0f}] and do not"
