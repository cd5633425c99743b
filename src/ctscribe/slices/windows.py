"""Windows: which Hounsfield units become black and white."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Real, UInt8


@final
@dataclass(frozen=True, slots=True)
class Window:
    """A linear grey scale, as on a reading station."""

    name: str
    center_hu: float
    width_hu: float

    @property
    def lower_hu(self) -> float:
        """Black at and below."""
        return self.center_hu - self.width_hu / 2

    @property
    def upper_hu(self) -> float:
        """White at and above."""
        return self.center_hu + self.width_hu / 2


_WIDE = Window("wide", 0.0, 2000.0)
_SOFT_TISSUE = Window("soft tissue", 40.0, 400.0)
_LUNG = Window("lung", -700.0, 600.0)

WINDOWS: dict[Literal["single", "three"], tuple[Window, ...]] = {
    "single": (_WIDE,),
    "three": (_WIDE, _SOFT_TISSUE, _LUNG),
}
"""single: [−1000, 1000] HU (the paper's Eq. 3); three: one window per colour channel, which
lets a tower without biases tell uniform densities apart."""


def apply_window(hu: Real[np.ndarray, "*shape"], window: Window) -> UInt8[np.ndarray, "*shape"]:
    """Maps HU to 0…255, rounded to the nearest."""
    grey = (hu - np.float32(window.lower_hu)) * np.float32(255 / window.width_hu)
    shades: UInt8[np.ndarray, "*shape"] = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    return shades
