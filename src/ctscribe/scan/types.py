"""Names for arrays that several wings share.

In the tests, jaxtyping and beartype check their shapes, axis order and element types; this costs
nothing at run time.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int16, UInt8

VolumeHu = Int16[np.ndarray, "x y z"] | Float32[np.ndarray, "x y z"]
"""Hounsfield units, axes along the affine's columns; float32 where values are not whole."""
Affine = Float64[np.ndarray, "4 4"]
"""Voxel index (x, y, z, 1) → RAS+ position in mm (right, anterior, superior, 1 point to +)."""
NormalisedZxy = Float32[np.ndarray, "z x y"]
"""Hounsfield units clipped to ±1000 and divided by 1000 (Eq. 3); index order of the paper."""
Frames = UInt8[np.ndarray, "slices height width 3"]
"""What the model sees: anterior up, the patient's right on the left, most cranial slice first."""
