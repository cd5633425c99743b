"""Array shapes by name: axis order, element type and unit are part of the type.

Checked by jaxtyping and beartype in the tests, free at run time.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, UInt8

# Raw inputs
VolumeHu = Int16[np.ndarray, "x y z"] | Float32[np.ndarray, "x y z"]
"""Hounsfield units, axes along the affine's columns."""
Affine = Float64[np.ndarray, "4 4"]
"""Voxel index (x, y, z, 1) → RAS+ position in mm (right, anterior, superior, 1 point to +)."""

# Processed inputs
NormalisedZxy = Float32[np.ndarray, "z x y"]
"""Hounsfield units clipped to ±1000 and divided by 1000 (Eq. 3); index order of the paper."""
Frames = UInt8[np.ndarray, "slices height width 3"]
"""What the model sees: anterior up, the patient's right on the left, most cranial slice first."""
VisualTokens = Float[np.ndarray, "slice_pairs tokens hidden"]
"""Merged visual features; one row per pair of slices, independent of the other pairs."""

# Text side
Labels = tuple[int, ...]
"""The 18 CT-RATE findings in `findings.FINDINGS` order, 1 present, 0 absent."""
SpacingMm = tuple[float, float, float]
"""Voxel size along (x, y, z) in mm."""
BoxMm = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lower and upper corner in RAS+ mm."""

# Data sets
SourceSplit = Literal["train", "valid"]
"""The data set's own, as CT-RATE names it; valid becomes the test split."""

# Training
Strategy = Literal["origin", "gauss", "heter", "hard"]
"""What a study's report is paired with beside its own volume; see `recipe.PairsConfig`."""
