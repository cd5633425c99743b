"""Refusing what cannot be assessed: better no report than one about nothing."""

from collections.abc import Collection

import numpy as np

from ctscribe.scan.types import Frames

UNREADABLE = frozenset(
    {"E_NAN", "E_NOT_CT", "E_NOT_HU", "E_NO_CONTENT", "E_TOO_FEW_SLICES", "E_HU_AMBIGUOUS"}
)
"""Codes of volumes that are read but hold no chest CT to report on."""

_MIN_SD = 8.0
"""Grey levels; a slice of air alone varies by less, a chest by 60 and more."""
_MIN_CORRELATION = 0.6
"""Of neighbouring pixels; white noise has 0, sharp reconstructions of a chest more than 0.8."""


def why_not_assessable(frames: Frames, warnings: Collection[str]) -> str | None:
    """The reason why these frames must not be reported on, or None.

    Args:
        frames: As the model would see them; the first channel is judged.
        warnings: Codes of what was noticed while preparing.
    """
    if "W_NOT_CHEST" in warnings:
        return "no lungs were found, so this is no chest CT or not a whole one"
    grey = frames[..., 0].astype(np.float32)
    if float(np.median(grey.std((1, 2)))) < _MIN_SD:
        return "the slices are blank"
    if _neighbour_correlation(grey) < _MIN_CORRELATION:
        return "the slices hold noise and no anatomy"
    return None


def _neighbour_correlation(grey: np.ndarray) -> float:
    """Median over slices of the correlation of each pixel with the one to its right."""
    found = []
    for image in grey:
        first, second = image[:, :-1].ravel(), image[:, 1:].ravel()
        spread = first.std() * second.std()
        if spread > 0:
            found.append(float(np.mean((first - first.mean()) * (second - second.mean())) / spread))
    return float(np.median(found)) if found else 0.0
