"""Names for tuples and literals that several wings share."""

from typing import Literal

Labels = tuple[int, ...]
"""The 18 CT-RATE findings in `findings.FINDINGS` order, 1 present, 0 absent."""
SpacingMm = tuple[float, float, float]
"""Voxel size along (x, y, z) in mm."""
BoxMm = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lower and upper corner in RAS+ mm."""

Sex = Literal["F", "M", "O"]
"""As DICOM has it; O is other."""
SourceSplit = Literal["train", "valid"]
"""The data set's own, as CT-RATE names it; valid becomes the test split."""
Split = Literal["train", "validation", "test"]
"""train: trained on; validation: chooses checkpoints and hyper-parameters; test: scored."""
Strategy = Literal["origin", "gauss", "heter", "hard"]
"""Which other volume a study's report is paired with; see `recipe.PairsConfig`."""
PredictionFormat = Literal[
    "csv", "jsonl", "vlm3d", "vlm3d-nested", "ct-chat", "ct-chat-truth", "ct2rep"
]
"""Formats of files of predicted reports; see `predictions.write_predictions`."""
Projection = Literal["none", "slab"]
"""Whether frames show slabs besides their slices; see `recipe.SlicesConfig`."""
Windows = Literal["single", "three"]
"""The set of grey scales of a frame's channels; see `frames.WINDOWS`."""
Intensity = Literal["auto", "raw", "hu"]
"""What stored voxel values are; see `intensity.to_hu`."""
Flavour = Literal["v1", "v2"]
"""CT-RATE's release. v1: raw values, blank header; v2, "fixed": Hounsfield units, true header."""
