"""Two scans that read alike and look different, found without comparing all with all.

Reports that share most of their word pairs also share one of their rarest. So the most alike are
sought among those that share a rare one, with a bar for likeness that is lowered until enough
pass it. What is found is what comparing all pairs would find.
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
_MOST_CANDIDATES = 200
_BARS = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3, 0.0)
_ROUNDING = 1e-9
_ROWS_AT_ONCE = 256
_PAIRS_AT_ONCE = 1 << 14

Pair = tuple[float, int, int]
"""Minus the likeness, and the places of two scans: sorted, the most alike come first."""


def look_alikes(scans: Sequence[StudyRow], prepared: Prepared) -> tuple[StudyRow, StudyRow] | None:
    """Two scans with nearly the same report and different images, or None where none compare.

    Of all pairs of scans of different patients, the hundredth part (one at least, 200 at most)
    whose references share most word pairs (Dice's coefficient of their sets); of these, the pair
    whose frames differ most in mean absolute grey value, slice by slice. Of equals the first.

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
    """The places of so many pairs of different patients' scans, the most alike first.

    Of equally alike pairs those of earlier scans come first.

    Args:
        has: Ones where a scan has an item, a sparse matrix [scans, items].
        patients: Number of each scan's patient.
        number: At most as many as there are.
    """
    found: list[Pair] = [(-1.0, *pair) for pair in islice(_equal(has, patients), number)]
    for bar in _BARS:
        if len(found) == number:
            break
        found = _above(has, patients, number, bar)
    told = {(i, j) for _, i, j in found}
    unlike = ((i, j) for i, j in _apart(patients) if (i, j) not in told)
    return [(i, j) for _, i, j in found] + [*islice(unlike, number - len(found))]


def _equal(has: Any, patients: Int64[np.ndarray, "scans"]) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Pairs with the very same items, which must be some, in order."""
    items = [row.tobytes() for row in np.split(has.indices, has.indptr[1:-1])]
    same = defaultdict(list)
    for scan, key in enumerate(items):
        same[key].append(scan)
    for scan, key in enumerate(items):
        if key:
            others = np.array(same[key])
            chosen = (others > scan) & (patients[others] != patients[scan])
            yield from ((scan, other) for other in others[chosen].tolist())


def _apart(patients: Int64[np.ndarray, "scans"]) -> Iterator[tuple[int, int]]:
    """All pairs of different patients' scans, in order."""
    for scan in range(len(patients)):
        others = np.flatnonzero(patients[scan + 1 :] != patients[scan]) + scan + 1
        yield from ((scan, other) for other in others.tolist())


def _above(
    has: Any,  # noqa: ANN401
    patients: Int64[np.ndarray, "scans"],
    number: int,
    bar: float,
) -> list[Pair]:
    """The most alike of the pairs whose likeness is above 0 and reaches a bar."""
    sizes, rare, found = np.diff(has.indptr), _rarest(has, bar), list[Pair]()
    for start in range(0, len(sizes), _ROWS_AT_ONCE):
        near = (rare[start : start + _ROWS_AT_ONCE] @ rare.T).tocoo()
        first, second = near.row + start, near.col
        likely = 2 * np.minimum(sizes[first], sizes[second]) >= bar * (sizes[first] + sizes[second])
        kept = (first < second) & (patients[first] != patients[second]) & likely
        first, second = first[kept], second[kept]
        for at in range(0, len(first), _PAIRS_AT_ONCE):
            one, two = first[at : at + _PAIRS_AT_ONCE], second[at : at + _PAIRS_AT_ONCE]
            shared = has[one].multiply(has[two]).sum(axis=1).A1
            dice = 2 * shared / (sizes[one] + sizes[two])
            enough = dice >= max(bar, -found[-1][0] if len(found) == number else 0)
            passed = zip(*(each[enough].tolist() for each in (-dice, one, two)), strict=True)
            found = sorted([*found, *passed])[:number]
    return found


def _rarest(has: Any, bar: float) -> Any:  # noqa: ANN401
    """Of each scan as many of the rarest items that whoever reaches the bar must share one.

    Of a items, at least bar × a / (2 − bar) must be shared, so one of the others and one more.
    """
    sizes = np.diff(has.indptr)
    rank = np.argsort(np.argsort(np.bincount(has.indices, minlength=has.shape[1]), kind="stable"))
    ranked = csr_matrix((has.data, rank[has.indices], has.indptr), has.shape)
    ranked.sort_indices()
    needed = np.ceil(bar * sizes / (2 - bar) - _ROUNDING).astype(int)
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
    """Mean absolute difference; −1 where the frames are of different size."""
    first, second = (prepared.frames(scan) for scan in (one, two))
    if first.shape != second.shape:
        return -1.0
    return float(np.abs(first.astype(np.int16) - second).mean())
