"""Do prediction and reference state the same findings?

Counted over the cells scans × 18 findings. Coverage is the share of the reference's findings
that were stated (micro recall); it stands beside precision, because stating everything covers
everything. CRG (arXiv:2505.17167) equals 1 / (3 − 2J) with J = TPR − FPR over all cells, so it
lies between 0.2 and 1. It is 1/3 for whoever states every finding equally often, such as all or
none of them; but the cells of all findings are pooled, so that a constant which states the
commonest has more: 0.41 on 800 real reports. Without a finding in the references A = 0, TPR is
undefined and so is CRG; without a cell free of findings there is nothing to alarm falsely about,
and FPR counts as 0.
F1 is scikit-learn's: ``f1_weighted`` its ``average="weighted"``, ``f1_per_report`` its
``average="samples"`` with ``zero_division=1``, so that saying nothing of a scan without findings
is right.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from ctscribe.base.types import Labels
from ctscribe.text.findings import FINDINGS

CLINICAL_METRICS = {
    "coverage": "TP/(TP+FN) over all cells",
    "coverage_macro": "mean over findings present in the references of TP/(TP+FN)",
    "coverage_per_report": "mean over scans with a finding of their own TP/(TP+FN)",
    "precision": "TP/(TP+FP) over all cells, 0 when nothing is stated",
    "precision_macro": "mean over findings present in the references of TP/(TP+FP)",
    "f1": "2TP/(2TP+FP+FN) over all cells",
    "f1_macro": "mean over findings present in the references of 2TP/(2TP+FP+FN)",
    "f1_weighted": "mean over findings of 2TP/(2TP+FP+FN), weighted by TP+FN",
    "f1_per_report": "mean over scans of their own 2TP/(2TP+FP+FN), 1 where both state nothing",
    "label_accuracy": "(TP+TN)/cells",
    "exact_match": "share of scans with all 18 right",
    "crg": "1/(3-2J), J=TPR-FPR over all cells",
}
"""Metric → its definition, which is the signature's body."""

_N = len(FINDINGS)
NUM_CLINICAL_COLUMNS = 4 * _N + 5
"""Of `clinical_statistics`."""


def clinical_signature(
    metric: str, label_source: str, num_scans: int, *, macro_of_all: bool = False
) -> str:
    """Says how a clinical score was computed, and who read the findings."""
    definition = CLINICAL_METRICS[metric]
    if macro_of_all:
        definition = definition.replace("findings present in the references", f"all {_N} findings")
    return f"{metric}|{definition}|labels:{label_source}|findings:{_N}|scans:{num_scans}"


def clinical_statistics(
    *, predictions: Sequence[Labels], references: Sequence[Labels]
) -> Float64[np.ndarray, "scans 77"]:
    """Sufficient statistics of each scan's stated findings against those of its reference.

    Returns:
        Per scan: TP, FP, FN, TN of each finding (4 × 18), the scan's own recall and F1, whether
        it has a finding, whether all 18 are right, and 1.
    """
    stated, true = (
        np.array(rows, dtype=np.float64).reshape(-1, _N) for rows in (predictions, references)
    )
    hits = stated * true
    present = true.sum(axis=1)
    recall = ratio(hits.sum(axis=1), present, empty=0.0)
    f1 = ratio(2 * hits.sum(axis=1), present + stated.sum(axis=1), empty=1.0)
    exact = (stated == true).all(axis=1)
    scan = np.stack([recall, f1, present > 0, exact, np.ones(len(true))], axis=1)
    return np.hstack([hits, stated - hits, true - hits, (1 - stated) * (1 - true), scan])


def clinical_scores(
    totals: Float64[np.ndarray, "rows 77"], *, macro_of_all: bool = False
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The metrics of `CLINICAL_METRICS` from rows of sums of `clinical_statistics`.

    Args:
        totals: The sums.
        macro_of_all: Whether macro scores are means over all 18 findings, as CT-RATE's challenge
            has them; one that the references do not have counts 0.

    Returns:
        Metric → one value per row, NaN where the references have no finding to cover.
    """
    tp, fp, fn, tn = (totals[:, _N * k : _N * (k + 1)] for k in range(4))
    all_tp, all_fp, all_fn, all_tn = (count.sum(axis=1) for count in (tp, fp, fn, tn))
    recall_sum, f1_sum, with_finding, exact, scans = totals[:, 4 * _N :].T
    support = tp + fn
    averaged = (support > 0) | macro_of_all
    f1 = ratio(2 * tp, 2 * tp + fp + fn, empty=0.0)
    coverage = ratio(all_tp, all_tp + all_fn)
    false_alarm_rate = ratio(all_fp, all_fp + all_tn, empty=0.0)
    return {
        "coverage": coverage,
        "coverage_macro": mean_where(averaged, ratio(tp, support, empty=0.0)),
        "coverage_per_report": ratio(recall_sum, with_finding),
        "precision": ratio(all_tp, all_tp + all_fp, empty=0.0),
        "precision_macro": mean_where(averaged, ratio(tp, tp + fp, empty=0.0)),
        "f1": ratio(2 * all_tp, 2 * all_tp + all_fp + all_fn),
        "f1_macro": mean_where(averaged, f1),
        "f1_weighted": ratio((f1 * support).sum(axis=1), support.sum(axis=1)),
        "f1_per_report": ratio(f1_sum, scans),
        "label_accuracy": ratio(all_tp + all_tn, scans * _N),
        "exact_match": ratio(exact, scans),
        "crg": 1 / (3 - 2 * (coverage - false_alarm_rate)),
    }


def finding_scores(
    totals: Float64[np.ndarray, "rows 77"],
) -> dict[str, Float64[np.ndarray, "rows 18"]]:
    """Coverage, precision and F1 of every finding from sums of `clinical_statistics`.

    NaN where nothing is to be covered, or nothing was stated.
    """
    tp, fp, fn = (totals[:, _N * k : _N * (k + 1)] for k in range(3))
    return {
        "coverage": ratio(tp, tp + fn),
        "precision": ratio(tp, tp + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def finding_counts(
    totals: Float64[np.ndarray, "1 77"],
) -> dict[str, Int64[np.ndarray, "18"]]:
    """True and false positives and negatives of every finding."""
    names = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    return {name: totals[0, _N * k : _N * (k + 1)].astype(np.int64) for k, name in enumerate(names)}


def ratio(
    part: Float64[np.ndarray, "..."], whole: Float64[np.ndarray, "..."], empty: float = np.nan
) -> Float64[np.ndarray, "..."]:
    """Part by whole, and ``empty`` where the whole is 0."""
    quotient = np.full(whole.shape, empty)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def mean_where(
    counted: np.ndarray, values: Float64[np.ndarray, "rows columns"]
) -> Float64[np.ndarray, "rows"]:
    """Mean of each row over the columns that are counted in it, NaN where none is."""
    return ratio(np.where(counted, values, 0.0).sum(axis=1), counted.sum(axis=1).astype(float))
