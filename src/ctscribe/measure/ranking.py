"""Do probabilities of a finding rank the scans that have it above those that have not?

In: a label head's probabilities and the true labels. Out: AUROC and average precision of every
finding, and their means, with intervals by patient. Both are scikit-learn's ``roc_auc_score`` and
``average_precision_score``, ties included.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from ctscribe.measure.clinical import mean_where, ratio
from ctscribe.measure.intervals import Resampler, with_interval
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

_DRAWS_AT_ONCE = 256


def by_ranking(
    probabilities: Float64[np.ndarray, "scans 18"],
    truth: Sequence[ScanReport],
    resampler: Resampler,
) -> dict[str, Any]:
    """AUROC and average precision with intervals over the draws.

    Returns:
        ``macro``: metric → the mean over the findings of which it is defined, with ``signature``;
        ``per_finding``: rows of ``finding``, ``positives`` and the metrics. AUROC is undefined
        where all scans or none have the finding, average precision where none has.
    """
    labels = np.array([report.labels for report in truth], dtype=bool)
    columns = list(zip(probabilities.T, labels.T, strict=True))
    every = np.ones((1, len(labels)))
    point = _all_findings([ranking_scores(*column, every) for column in columns])
    drawn = _all_findings([_drawn(*column, resampler) for column in columns])
    about = f"mean over findings|findings:{len(FINDINGS)}|scans:{len(labels)}"
    return {
        "macro": {
            name: with_interval(_macro(point[name]), _macro(drawn[name]))
            | {"signature": f"{name}|{definition}|{about}"}
            for name, definition in RANKING.items()
        },
        "per_finding": [
            {"finding": finding, "positives": int(labels[:, i].sum())}
            | {name: with_interval(point[name][:, i], drawn[name][:, i]) for name in RANKING}
            for i, finding in enumerate(FINDINGS)
        ],
    }


def ranking_scores(
    probability: Float64[np.ndarray, "scans"],
    truth: Bool[np.ndarray, "scans"],
    weight: Float64[np.ndarray, "draws scans"],
) -> dict[str, Float64[np.ndarray, "draws"]]:
    """The metrics of `RANKING` for one finding.

    Args:
        probability: Of each scan; only their order counts.
        truth: Which scans have the finding.
        weight: How often each scan counts in each draw.

    Returns:
        Metric → one value per draw, NaN where it is undefined.
    """
    order = np.argsort(probability)
    levels = np.flatnonzero(np.diff(probability[order], prepend=-np.inf))
    sorted_weight = weight[:, order]
    # Scans of one probability stand or fall together, so they are one column from here on.
    all_scans = np.add.reduceat(sorted_weight, levels, axis=1)
    positive = np.add.reduceat(sorted_weight * truth[order], levels, axis=1)
    negative = all_scans - positive
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    won = (positive * (negative.cumsum(axis=1) - negative / 2)).sum(axis=1)
    found = positive[:, ::-1].cumsum(axis=1)
    shown = all_scans[:, ::-1].cumsum(axis=1)
    area = (positive[:, ::-1] * ratio(found, shown, empty=0.0)).sum(axis=1)
    return {
        "auroc": ratio(won, positives * negatives),
        "average_precision": ratio(area, positives),
    }


def _drawn(
    probability: Float64[np.ndarray, "scans"],
    truth: Bool[np.ndarray, "scans"],
    resampler: Resampler,
) -> dict[str, Float64[np.ndarray, "draws"]]:
    """Exactly what each draw scores; in parts, so that thousands of draws fit into memory."""
    parts = [
        ranking_scores(probability, truth, draws[:, resampler.patients])
        for draws in np.split(
            resampler.draws, range(_DRAWS_AT_ONCE, len(resampler.draws), _DRAWS_AT_ONCE)
        )
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in RANKING}


def _all_findings(
    scores: Sequence[dict[str, Float64[np.ndarray, "draws"]]],
) -> dict[str, Float64[np.ndarray, "draws 18"]]:
    return {name: np.stack([each[name] for each in scores], axis=1) for name in RANKING}


def _macro(values: Float64[np.ndarray, "draws 18"]) -> Float64[np.ndarray, "draws"]:
    return mean_where(np.isfinite(values), values)
