"""Tuples and words that several wings hand to each other, by name."""

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
"""Training patients, those held out to choose checkpoints, and those that are scored."""
Strategy = Literal["origin", "gauss", "heter", "hard"]
"""What a study's report is paired with beside its own volume; see `recipe.PairsConfig`."""
PredictionFormat = Literal[
    "csv", "jsonl", "vlm3d", "vlm3d-nested", "ct-chat", "ct-chat-truth", "ct2rep"
]
"""Files of written reports, ours or another tool's; see `predictions.write_predictions`."""
Projection = Literal["none", "slab"]
"""Whether frames show more than their slices; see `recipe.SlicesConfig`."""
