"""Knobs of writing, scoring and comparing."""

from typing import Literal

from pydantic import Field

from ctscribe.config.section import Section


class GenerateConfig(Section):
    """Writing reports at temperature 0."""

    max_new_tokens: int = Field(512, ge=1)
    """Longest report."""
    batch_size: int = Field(4, ge=1)
    """Studies written at once."""


class EvaluateConfig(Section):
    """Text handling, optional metrics, intervals."""

    profile: Literal["ctrate-raw", "r2gen"] = "ctrate-raw"
    """ctrate-raw: strings as CT-RATE's challenge handles them, cased; r2gen: lower case, no
    punctuation."""
    meteor: bool = False
    """Also METEOR, which needs Java and pycocoevalcap."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap draws of patients."""
    seed: int = 0
    """Of the draws."""


class ExperimentConfig(Section):
    """The grid: variants × betas × seeds."""

    betas: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2)
    """Table 2's weights of the negative, for `beta_strategy`; 0 is Origin."""
    beta_strategy: Literal["gauss", "heter"] = "gauss"
    """Which negatives Table 2 varies (paper: gauss)."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds per cell."""
