"""Who is most alike by what is known of a scan without a voxel of it: age, sex, manufacturer.

In: reports with their headers. Out: for each reference the report of the nearest other patient. A
system that scores no higher may have read the header alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy.spatial import KDTree

from ctscribe.measure.scans import ScanReport

_JITTER = 1e-6
"""By which equals are told apart, so that one of them is drawn."""

Values = Sequence[str | float | None]


def find_alike(
    known: Sequence[ScanReport], references: Sequence[ScanReport], rng: np.random.Generator
) -> tuple[list[str], list[ScanReport]]:
    """The report of another patient nearest to each reference.

    Numbers are compared in their standard deviations, names as equal or not, and what is not known
    of a scan counts as the mean, or as a name of its own.

    Args:
        known: Reports to choose from, for every patient at least one of somebody else.
        references: The scans to answer.
        rng: Draws among equals.

    Returns:
        What is compared, and one report per reference; nothing where nothing is known of both.
    """
    ordered = sorted(known, key=lambda report: report.scan_id)
    there, here = ([dict(report.header) for report in each] for each in (ordered, references))
    told = sorted(set().union(*there) & set().union(*here))
    if not told:
        return [], []
    both = np.hstack([_scaled([each.get(name) for each in (*there, *here)]) for name in told])
    both = both + rng.normal(scale=_JITTER, size=both.shape)
    own = Counter(report.patient_id for report in ordered)
    most = max(own[report.patient_id] for report in references)
    tree, nearest = KDTree(both[: len(there)]), range(1, min(most + 1, len(there)) + 1)
    places = tree.query(both[len(there) :], k=list(nearest))[1]
    chosen = []
    for reference, row in zip(references, places.tolist(), strict=True):
        nearest_first = (ordered[place] for place in row)
        chosen.append(next(r for r in nearest_first if r.patient_id != reference.patient_id))
    return told, chosen


def _scaled(values: Values) -> Float64[np.ndarray, "scans columns"]:
    """One column of numbers, or one column for each name."""
    if any(isinstance(value, str) for value in values):
        names: Mapping[str, int] = {name: n for n, name in enumerate(sorted(map(str, set(values))))}
        return np.eye(len(names))[[names[str(value)] for value in values]]
    column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    spread = np.nanstd(column)
    scaled = (column - np.nanmean(column)) / (spread if spread > 0 else 1.0)
    return np.nan_to_num(scaled, nan=0.0)[:, None]
