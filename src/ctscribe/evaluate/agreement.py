"""Where both reports state a finding: do they agree on its side, and on a nodule's size?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from ctscribe.reports.labeler import find_mentions
from ctscribe.reports.sides import sides_named
from ctscribe.reports.sizes import largest_nodule_mm

AGREEMENT = {
    "side_agreement": "of findings both state with a side, the share on the same side or sides",
    "nodule_size_within_2_mm": "of nodules both measure, the share of largest within 2 mm",
    "nodule_size_error_mm": "of nodules both measure, mean absolute difference of the largest",
}
"""Measure → definition."""

TOLERANCE_MM = 2.0


def agreement_statistics(
    *, predictions: Sequence[str], references: Sequence[str]
) -> Float64[np.ndarray, "scans 5"]:
    """Sufficient statistics per scan of what is agreed on where both state the same.

    Returns:
        Per scan: findings on the same side, findings with a side in both, nodules within the
        tolerance, absolute difference in mm, nodules measured in both.
    """
    rows = []
    for written, truth in zip(predictions, references, strict=True):
        stated, true = _sides(written), _sides(truth)
        shared = [finding for finding in stated if stated[finding] and true.get(finding)]
        same = sum(stated[finding] == true[finding] for finding in shared)
        row = [float(same), float(len(shared)), 0.0, 0.0, 0.0]
        if "Lung nodule" in stated and "Lung nodule" in true:
            first, second = largest_nodule_mm(written), largest_nodule_mm(truth)
            if first is not None and second is not None:
                error_mm = abs(first - second)
                row[2:] = [float(error_mm <= TOLERANCE_MM), error_mm, 1.0]
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def agreement_scores(
    totals: Float64[np.ndarray, "draws 5"],
) -> dict[str, Float64[np.ndarray, "draws"]]:
    """The measures of `AGREEMENT` from sums over scans; NaN where nothing can be compared."""
    same, sided, close, error_mm, measured = totals.T
    pairs = ((same, sided), (close, measured), (error_mm, measured))
    return {
        name: np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
        for name, (part, whole) in zip(AGREEMENT, pairs, strict=True)
    }


def _sides(text: str) -> dict[str, frozenset[str]]:
    sentences: dict[str, list[str]] = {}
    for mention in find_mentions(text):
        if mention.status == "present":
            sentences.setdefault(mention.finding, []).append(mention.sentence)
    return {finding: sides_named(stated) for finding, stated in sentences.items()}
