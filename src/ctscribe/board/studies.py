"""Which studies a scoreboard shows, and their slices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, UInt8

from ctscribe.evaluate.language import normalise
from ctscribe.evaluate.ngrams import count_ngrams
from ctscribe.evaluate.scans import scored_text
from ctscribe.export.comparison import Comparison
from ctscribe.export.display import window_title
from ctscribe.export.scoreboard import ShownStudy
from ctscribe.rows import StudyRow
from ctscribe.slices.cache import read_frames
from ctscribe.slices.windows import WINDOWS

WindowSet = Literal["single", "three"]
"""A key of `WINDOWS`."""

MAX_SIDE_PX = 256
"""Slices are drawn at most this large, so that a page of twenty studies stays a page."""

_CANDIDATES = 0.01
_MOST_CANDIDATES = 200


def look_alikes(scans: Sequence[StudyRow], prepared_dir: Path) -> tuple[StudyRow, StudyRow] | None:
    """Two scans with nearly the same report and different images, or None where none compare.

    Of all pairs of scans of different patients, the hundredth part (one at least, 200 at most)
    whose references share most word pairs (Dice's coefficient of their sets); of these, the pair
    whose frames differ most in mean absolute grey value, slice by slice. Of equals the first.

    Args:
        scans: One row per scan.
        prepared_dir: Holds their frames.
    """
    first, second = np.triu_indices(len(scans), k=1)
    patients = np.array([scan.patient_id for scan in scans], dtype=np.str_)
    apart = patients[first] != patients[second]
    first, second = first[apart], second[apart]
    if not len(first):
        return None
    likeness = _dice(scans)[first, second]
    number = min(_MOST_CANDIDATES, max(1, int(_CANDIDATES * len(first))))
    closest = np.argsort(-likeness, kind="stable")[:number].tolist()
    pairs = [(scans[first[i]], scans[second[i]]) for i in closest]
    difference = [_grey_difference(one, two, prepared_dir) for one, two in pairs]
    best = int(np.argmax(difference))
    return None if difference[best] < 0 else pairs[best]


def show_study(
    comparison: Comparison, study: StudyRow, prepared_dir: Path, windows: WindowSet
) -> ShownStudy:
    """A study's comparison with its frames, the most telling windows first."""
    frames = read_frames(prepared_dir, study.volume_name)
    drawn = list(enumerate(WINDOWS[windows]))[::-1][:2]
    factor = -(-max(frames.shape[1:3]) // MAX_SIDE_PX)
    across, down = np.linalg.norm(np.array(study.frame_to_ras)[:3, :2], axis=0).tolist()
    return ShownStudy(
        comparison,
        {window_title(window): _smaller(frames[..., channel], factor) for channel, window in drawn},
        study.slice_indices,
        study.position_mm,
        (across * factor, down * factor),
    )


def _dice(scans: Sequence[StudyRow]) -> Float64[np.ndarray, "scans scans"]:
    texts = [scored_text(scan.findings, scan.impression) for scan in scans]
    tokens = [normalise(text, "r2gen", predicted=False).split() for text in texts]
    has = (count_ngrams(tokens, tokens).truth[1] > 0).astype(np.float64)
    sizes = np.asarray(has.sum(axis=1)).ravel()
    shared: Float64[np.ndarray, "scans scans"] = (has @ has.T).toarray()
    dice: Float64[np.ndarray, "scans scans"] = (
        2 * shared / np.maximum(1.0, sizes[:, None] + sizes[None])
    )
    return dice


def _grey_difference(one: StudyRow, two: StudyRow, prepared_dir: Path) -> float:
    """Mean absolute difference; −1 where the frames are of different size."""
    first, second = (read_frames(prepared_dir, scan.volume_name) for scan in (one, two))
    if first.shape != second.shape:
        return -1.0
    return float(np.abs(first.astype(np.int16) - second).mean())


def _smaller(
    images: UInt8[np.ndarray, "slices height width"], factor: int
) -> UInt8[np.ndarray, "slices rows columns"]:
    """Means of ``factor`` × ``factor`` pixels; what is left over at the far edges is cut off."""
    slices, height, width = images.shape
    rows, columns = height // factor, width // factor
    kept = images[:, : rows * factor, : columns * factor]
    means = kept.reshape(slices, rows, factor, columns, factor).mean(axis=(2, 4))
    drawn: UInt8[np.ndarray, "slices rows columns"] = np.rint(means).astype(np.uint8)
    return drawn
