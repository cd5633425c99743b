"""Knobs of the data: drawing it, bringing it onto one grid, slicing and pairing it."""

from typing import Literal

from pydantic import Field, model_validator

from ctscribe.config.section import Fraction, Millimetres, Section
from ctscribe.types import Strategy


class PhantomConfig(Section):
    """Synthetic chest CT."""

    num_train_patients: int = Field(200, ge=1)
    """Patients whose scans are named ``train_*``."""
    num_valid_patients: int = Field(50, ge=0)
    """Patients whose scans are named ``valid_*``; CT-RATE's validation set is our test split."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (1.5, 1.5, 2.0)
    """Nominal voxel size along (x, y, z); each reconstruction varies around it."""
    matrix_px: int = Field(256, ge=64, le=1024)
    """Rows and columns of the reconstruction."""
    flavour: Literal["v1", "v2"] = "v2"
    """CT-RATE release to imitate: v1 raw values and blank header, v2 Hounsfield units."""
    burden: float = Field(0.0, ge=-1, le=2)
    """Added to what drives each finding, in standard deviations; 0 gives CT-RATE's prevalences,
    0.7 doubles most of them."""
    lesion_scale: float = Field(1.0, ge=1, le=3)
    """Enlarges nodules, nodes, plaques and other small lesions; above 1 for grids too coarse to
    show real ones."""
    nodule_mm: float = Field(9.0, ge=4, le=20)
    """Median diameter of lung nodules, log-normal between 4 and 28 mm; screening finds smaller
    ones than the default."""
    second_reconstruction: Fraction = 0.9
    """Share of scans with a second reconstruction (CT-RATE: 0.9)."""
    seed: int = 0
    """Same seed, same bytes."""


class VolumeConfig(Section):
    """From stored voxels to Hounsfield units on a common grid."""

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = (0.75, 0.75, 1.5)
    """Voxel size after resampling along (x, y, z) (paper, Eq. 2)."""
    intensity: Literal["auto", "raw", "hu"] = "auto"
    """Whether stored values need the metadata's slope and intercept; auto decides by histogram."""
    max_tilt_degrees: float = Field(30.0, ge=0.0, le=45.0)
    """Slices stacked off their normal (gantry tilt) are set upright up to this angle, degrees, and
    refused beyond; below 0.5 nothing is done."""
    antialias: bool = False
    """Average where the grid is coarser than the scan; plain sampling (paper) skips voxels."""


class SlicesConfig(Section):
    """Which slices the model sees, and how."""

    num_slices: int = Field(10, ge=2, le=240, multiple_of=2)
    """Slices per volume; even, because the tower reads them in pairs."""
    windows: Literal["single", "three"] = "single"
    """single: [−1000, 1000] HU in all channels; three: wide, soft tissue, lung as channels."""
    frame_size_px: tuple[int, int] | None = None
    """(height, width), multiples of 28, reached by centred crop or padding with air, never by
    scaling; None pads each volume to the next multiple of 28."""
    token_budget: int | None = Field(None, ge=1)
    """Visual tokens that a volume's frames may take together; frames that would take more show the
    same field of view with larger pixels. None (paper): all that they take on the grid."""

    @model_validator(mode="after")
    def _sides_are_whole_tokens(self) -> "SlicesConfig":
        if self.frame_size_px and any(side % 28 or side <= 0 for side in self.frame_size_px):
            raise ValueError("frame_size_px must be multiples of 28, one visual token's side")
        return self

    @model_validator(mode="after")
    def _budget_serves(self) -> "SlicesConfig":
        if self.token_budget is not None and self.token_budget < self.num_slices // 2:
            raise ValueError("token_budget must leave each pair of slices one visual token")
        return self


class PairsConfig(Section):
    """The negative beside each positive."""

    strategy: Strategy = "origin"
    """origin: no negatives; gauss: noise volume; heter: a patient whose labels differ; hard: the
    most similar patient who contradicts a stated finding."""
    min_label_distance: int = Field(10, ge=1, le=18)
    """Labels that must differ (heter); relaxed one step at a time where nobody qualifies."""
    num_alternatives: int = Field(8, ge=1, le=64)
    """Nearest contradicting volumes among which each epoch draws a study's negative (hard)."""
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of training patients held out to choose checkpoints and hyper-parameters."""
    seed: int = 0
    """Draws partners and noise."""
