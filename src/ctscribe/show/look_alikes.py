"""Finds two scans with nearly the same report but different images.

The similarity of reports is the Dice coefficient of their sets of bigrams. Two similar reports must
share one of their rarest bigrams (prefix filtering). So only pairs that do are compared, with a
threshold that is lowered until enough pairs reach it. Comparing all pairs would give the same.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csr_matrix

from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from ctscribe.measure.intervals import patient_index
from ctscribe.measure.language import ngram_matrices, normalise
from ctscribe.measure.scans import scored_text

ALIKE = (
    "Of all pairs of scans of different patients, the hundredth part whose references share "
    "most word pairs; of these, the two whose slices differ most in grey. Reports like these are "
    "why a model can score well without looking."
)
"""How the look-alike reports are chosen."""

_CANDIDATES = 0.01
"""Share of all pairs whose images are compared, at most `_MOST_CANDIDATES`."""
_MOST_CANDIDATES = 200
_THRESHOLDS = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3, 0.0)
_ROUNDING = 1e-9
_ROWS_AT_ONCE = 256
_PAIRS_AT_ONCE = 1 << 14

Pair = tuple[float, int, int]
"""(negative similarity, index of one scan, index of the other), so that the most similar sort
first."""


def look_alikes(scans: Sequence[StudyRow], prepared: Prepared) -> tuple[StudyRow, StudyRow] | None:
    """Two scans with nearly the same report and different images; None where there are none.

    Of all pairs of different patients' scans, the 1 % with the most similar reports are taken (at
    least one, at most 200). Of these, it is the pair whose frames have the largest mean absolute
    difference of grey values; of equals the first.

    Args:
        scans: One row per scan.
        prepared: Holds their frames.
    """
    patients = patient_index([scan.patient_id for scan in scans])
    num_pairs = (len(scans) ** 2 - int((np.bincount(patients) ** 2).sum())) // 2
    if not num_pairs:
        return None
    number = min(_MOST_CANDIDATES, max(1, int(_CANDIDATES * num_pairs)))
    pairs = [(scans[i], scans[j]) for i, j in closest_pairs(_word_pairs(scans), patients, number)]
    difference = [_grey_difference(one, two, prepared) for one, two in pairs]
    best = int(np.argmax(difference))
    return None if difference[best] < 0 else pairs[best]


def closest_pairs(
    has: Any,  # noqa: ANN401 - scipy's matrices have no types
    patients: Int64[np.ndarray, "scans"],
    number: int,
) -> list[tuple[int, int]]:
    """Indices of the most similar pairs of different patients' scans, the most similar first.

    Of equally similar pairs those of earlier scans come first.

    Args:
        has: Sparse 0/1 matrix [scans, items].
        patients: Number of each scan's patient.
        number: Number of pairs, at most as many as there are.
    """
    found: list[Pair] = [(-1.0, *pair) for pair in islice(_identical_pairs(has, patients), number)]
    for threshold in _THRESHOLDS:
        if len(found) == number:
            break
        found = _pairs_above(has, patients, number, threshold)
    similar = dict.fromkeys((i, j) for _, i, j in found)
    others = (pair for pair in _all_pairs(patients) if pair not in similar)
    return [*similar, *islice(others, number - len(similar))]


def _identical_pairs(
    has: Any,  # noqa: ANN401
    patients: Int64[np.ndarray, "scans"],
) -> Iterator[tuple[int, int]]:
    """Pairs with exactly the same items, and at least one, in order."""
    items = [row.tobytes() for row in np.split(has.indices, has.indptr[1:-1])]
    same = defaultdict(list)
    for scan, key in enumerate(items):
        same[key].append(scan)
    for scan, key in enumerate(items):
        if key:
            others = np.array(same[key])
            chosen = (others > scan) & (patients[others] != patients[scan])
            yield from ((scan, other) for other in others[chosen].tolist())


def _all_pairs(patients: Int64[np.ndarray, "scans"]) -> Iterator[tuple[int, int]]:
    """All pairs of different patients' scans, in order."""
    for scan in range(len(patients)):
        others = np.flatnonzero(patients[scan + 1 :] != patients[scan]) + scan + 1
        yield from ((scan, other) for other in others.tolist())


def _pairs_above(
    has: Any,  # noqa: ANN401
    patients: Int64[np.ndarray, "scans"],
    number: int,
    threshold: float,
) -> list[Pair]:
    """The most similar of the pairs whose similarity is above 0 and reaches a threshold."""
    sizes, rare, found = np.diff(has.indptr), _rarest(has, threshold), list[Pair]()
    for start in range(0, len(sizes), _ROWS_AT_ONCE):
        near = (rare[start : start + _ROWS_AT_ONCE] @ rare.T).tocoo()
        first, second = near.row + start, near.col
        total = sizes[first] + sizes[second]
        can_reach = 2 * np.minimum(sizes[first], sizes[second]) >= threshold * total
        kept = (first < second) & (patients[first] != patients[second]) & can_reach
        first, second = first[kept], second[kept]
        for at in range(0, len(first), _PAIRS_AT_ONCE):
            one, two = first[at : at + _PAIRS_AT_ONCE], second[at : at + _PAIRS_AT_ONCE]
            shared = has[one].multiply(has[two]).sum(axis=1).A1
            dice = 2 * shared / (sizes[one] + sizes[two])
            enough = dice >= max(threshold, -found[-1][0] if len(found) == number else 0)
            passed = zip(*(each[enough].tolist() for each in (-dice, one, two)), strict=True)
            found = sorted([*found, *passed])[:number]
    return found


def _rarest(has: Any, threshold: float) -> Any:  # noqa: ANN401
    """Keeps of each scan its rarest items, so many that a similar enough scan must share one.

    Of n items, at least m = threshold × n / (2 − threshold) must be shared; so one of any
    n − m + 1 is.
    """
    sizes = np.diff(has.indptr)
    rank = np.argsort(np.argsort(np.bincount(has.indices, minlength=has.shape[1]), kind="stable"))
    ranked = csr_matrix((has.data, rank[has.indices], has.indptr), has.shape)
    ranked.sort_indices()
    needed = np.ceil(threshold * sizes / (2 - threshold) - _ROUNDING).astype(int)
    place = np.arange(has.nnz) - np.repeat(has.indptr[:-1], sizes)
    kept = place <= np.repeat(sizes - needed, sizes)
    starts = np.append(0, np.cumsum(kept))[has.indptr]
    return csr_matrix((ranked.data[kept], ranked.indices[kept], starts), has.shape)


def _word_pairs(scans: Sequence[StudyRow]) -> Any:  # noqa: ANN401
    texts = [scored_text(scan.findings, scan.impression) for scan in scans]
    tokens = [normalise(text, "r2gen", predicted=False).split() for text in texts]
    *_, has = ngram_matrices(tokens, 2)
    return csr_matrix((np.ones(has.nnz, np.int64), has.indices, has.indptr), has.shape)


def _grey_difference(one: StudyRow, two: StudyRow, prepared: Prepared) -> float:
    """Mean absolute difference of the frames; −1 where their shapes differ."""
    first, second = (prepared.frames(scan) for scan in (one, two))
    if first.shape != second.shape:
        return -1.0
    return float(np.abs(first.astype(np.int16) - second).mean())
