"""Do probabilities of a finding rank the scans that have it above those that have not?

In: a label head's probabilities and the true labels. Out: AUROC and average precision of every
finding, and their means, with intervals by patient. Both are scikit-learn's ``roc_auc_score`` and
``average_precision_score``, ties included.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from ctscribe.measure.clinical import mean_where, ratio
from ctscribe.measure.intervals import CORPUS, RATE, Jackknife, with_interval
from ctscribe.measure.scans import ScanReport
from ctscribe.text.findings import FINDINGS

RANKING = {
    "auroc": (
        "of all pairs of a scan with the finding and one without, the share in which the former "
        "has the higher probability, ties counting half"
    ),
    "average_precision": (
        "sum over falling thresholds, one at each distinct probability, of precision times the "
        "gain in recall"
    ),
}
"""Metric → definition."""

_DRAWS_AT_ONCE = 128


def by_ranking(
    probabilities: Float64[np.ndarray, "scans 18"],
    truth: Sequence[ScanReport],
    jackknife: Jackknife,
) -> dict[str, Any]:
    """AUROC and average precision with intervals over patients.

    Returns:
        ``macro``: metric → the mean over the findings of which it is defined, with ``signature``;
        ``per_finding``: rows of ``finding``, ``positives`` and the metrics. AUROC is undefined
        where all scans or none have the finding, average precision where none has.
    """
    labels = np.array([report.labels for report in truth], dtype=bool)
    columns = list(zip(probabilities.T, labels.T, strict=True))
    point = _all_findings(columns, [np.ones((len(labels), 1), np.float32)])
    without = _all_findings(columns, _without_each(jackknife))
    patients = [jackknife.count_where(has_it) for has_it in labels.T]
    about = f"mean over findings|findings:{len(FINDINGS)}|scans:{len(labels)}"
    return {
        "macro": {
            name: with_interval(_macro(point[name]), _macro(without[name]), CORPUS)
            | {"signature": f"{name}|{definition}|{about}"}
            for name, definition in RANKING.items()
        },
        "per_finding": [
            {"finding": finding, "positives": int(labels[:, i].sum())}
            | {
                name: with_interval(point[name][:, i], without[name][:, i], RATE, patients[i])
                for name in RANKING
            }
            for i, finding in enumerate(FINDINGS)
        ],
    }


def ranking_scores(
    probability: Float64[np.ndarray, "scans"],
    truth: Bool[np.ndarray, "scans"],
    weight: Float32[np.ndarray, "scans rows"],
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The metrics of `RANKING` for one finding.

    Args:
        probability: Of each scan; only their order counts.
        truth: Which scans have the finding.
        weight: How often each scan counts in each row of what is scored, whole numbers.

    Returns:
        Metric → one value per row, NaN where it is undefined.
    """
    order = np.argsort(-probability)
    has_it, falling = truth[order, None], weight[order]
    # Scans of one probability stand or fall together, so they are one row from here on. So are
    # those between two positives: they only add to what is shown.
    levels = np.flatnonzero(np.diff(probability[order], prepend=np.inf))
    positive_level = np.logical_or.reduceat(has_it[:, 0], levels)
    levels = levels[positive_level | np.roll(positive_level, 1) | (levels == 0)]
    positive = np.add.reduceat(falling * has_it, levels).astype(np.float64)
    shown = np.add.reduceat(falling, levels).cumsum(axis=0, dtype=np.float64)
    found = positive.cumsum(axis=0)
    positives, negatives = found[-1], shown[-1] - found[-1]
    # A level wins against the negatives below it, and half against those in it.
    beaten = 2 * negatives - (shown - found)
    beaten[1:] -= (shown - found)[:-1]
    won = (positive * beaten).sum(axis=0) / 2
    area = (positive * ratio(found, shown, empty=0.0)).sum(axis=0)
    return {
        "auroc": ratio(won, positives * negatives),
        "average_precision": ratio(area, positives),
    }


def _all_findings(
    columns: Sequence[tuple[np.ndarray, np.ndarray]],
    parts: Iterable[Float32[np.ndarray, "scans rows"]],
) -> dict[str, Float64[np.ndarray, "rows 18"]]:
    """Each finding's probabilities and truths, one part of the weights after the other."""
    scores = [[ranking_scores(*column, part) for column in columns] for part in parts]
    return {
        name: np.concatenate([np.stack([each[name] for each in row], axis=1) for row in scores])
        for name in RANKING
    }


def _without_each(jackknife: Jackknife) -> Iterator[Float32[np.ndarray, "scans _"]]:
    """Which scans are those of other patients than each one; in parts, to stay in the caches."""
    number = int(jackknife.patients.max()) + 1
    for at in range(0, number, _DRAWS_AT_ONCE):
        some = np.arange(at, min(at + _DRAWS_AT_ONCE, number))
        yield (jackknife.patients[:, None] != some).astype(np.float32)


def _macro(values: Float64[np.ndarray, "rows 18"]) -> Float64[np.ndarray, "rows"]:
    return mean_where(np.isfinite(values), values)
