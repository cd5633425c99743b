"""How alike two scans look before any finding: scanner, patient, build and grain of the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ctscribe.rows import StudyRow
from ctscribe.slices.cache import read_frames
from ctscribe.types import Frames

THUMBNAIL = 4
"""Rows and columns of the mean frame, scaled down."""


def appearances(
    prepared_dir: Path, studies: Sequence[StudyRow]
) -> Float64[np.ndarray, "studies numbers"]:
    """One row of numbers per study; the closer two rows, the more alike the scans look.

    Five groups weigh the same: the mean frame scaled to 4 × 4; the grain, which kernel and dose
    decide; the voxel size and the height of the lungs; age and sex; the manufacturer. Each number
    is standardised over the studies; what is unknown lies in the middle.

    Reads every study's frames once.

    Raises:
        CtscribeError: ``E_MISSING`` or ``E_CACHE`` when frames are not as prepared.
    """
    seen = [_look(read_frames(prepared_dir, study.volume_name)) for study in studies]
    groups = [
        np.array([thumbnail for thumbnail, _ in seen]),
        np.array([[grain] for _, grain in seen]),
        np.array([[s.spacing_mm[0], s.position_mm[0] - s.position_mm[-1]] for s in studies]),
        np.column_stack(
            [
                [np.nan if s.age_years is None else s.age_years for s in studies],
                _one_hot([study.sex for study in studies]),
            ]
        ),
        _one_hot([study.manufacturer for study in studies]),
    ]
    return np.hstack([_standardise(group) for group in groups])


def _look(frames: Frames) -> tuple[Float64[np.ndarray, "16"], float]:
    """The mean frame of the first channel, scaled down, and how much neighbouring pixels differ."""
    grey = frames[..., 0].astype(np.float32)
    mean = grey.mean(axis=0)
    height, width = (side // THUMBNAIL * THUMBNAIL for side in mean.shape)
    blocks = mean[:height, :width].reshape(THUMBNAIL, height // THUMBNAIL, THUMBNAIL, -1)
    return blocks.mean(axis=(1, 3)).ravel().astype(np.float64), _grain(grey)


def _grain(grey: np.ndarray) -> float:
    """Median absolute second difference along the rows where the image is not plain air."""
    bend = np.abs(grey[:, :, 2:] - 2 * grey[:, :, 1:-1] + grey[:, :, :-2])
    inside = bend[grey[:, :, 1:-1] > 0]
    return float(np.median(inside)) if inside.size else 0.0


def _one_hot(values: Sequence[str | None]) -> Float64[np.ndarray, "studies kinds"]:
    kinds = sorted({value for value in values if value})
    return np.array(
        [[float(v == kind) if v else np.nan for kind in kinds] for v in values]
    ).reshape(len(values), len(kinds))


def _standardise(
    group: Float64[np.ndarray, "studies numbers"],
) -> Float64[np.ndarray, "studies numbers"]:
    """Mean 0; variance 1 shared by the group's columns; unknown numbers become the mean."""
    known = ~np.isnan(group)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, group, 0).sum(axis=0) / count
    centred = np.where(known, group - mean, 0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    return np.asarray(centred / np.where(spread > 0, spread, 1) / np.sqrt(max(1, group.shape[1])))
