"""What the reports of a cell say, and how much of it hangs on the scan that was shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.measure.intervals import percentile_interval

SHUFFLES, SEED = 200, 0


def counts(rows: Sequence[PredictionRow], test: Sequence[StudyRow]) -> list[list[Any]]:
    """Patient, true positives, false positives and false negatives of every scan."""
    stated, true = stated_and_true(rows, test)
    numbers = [(stated & true).sum(1), (stated & ~true).sum(1), (~stated & true).sum(1)]
    by_scan = np.stack(numbers, axis=1).tolist()
    return [[row.patient_id, *of_scan] for row, of_scan in zip(rows, by_scan, strict=True)]


def hold_on_scan(
    folder: Path,
    prepared: Path,
    recipe: Recipe,
    rows: Sequence[PredictionRow],
    test: Sequence[StudyRow],
) -> dict[str, Any]:
    """Whether a run's reports would be others if other scans were shown.

    Args:
        folder: Training run; its best checkpoint wrote ``rows``.
        prepared: What `prepare` wrote.
        recipe: The run's.
        rows: One report per test scan.
        test: Studies of the test split.

    Returns:
        Number of different texts; Coverage of the texts shuffled among the scans, its mean and
        95 % range over the shuffles; the mismatch gap of the true reports in nats per token, with
        the interval of `measure_gap`.
    """
    from ctscribe.measure.card import measure_gap

    gap = measure_gap(folder, prepared, recipe, test)
    return {
        "texts": len({(row.findings, row.impression) for row in rows}),
        "shuffled_coverage": shuffled_coverage(*stated_and_true(rows, test)),
        "mismatch_gap": {name: gap[name] for name in ("value", "low", "high")},
    }


def shuffled_coverage(stated: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Coverage where every scan has the text of a scan drawn without replacement.

    Args:
        stated: bool [scans, findings].
        true: bool [scans, findings].
    """
    draw = np.random.default_rng(SEED)
    orders = (draw.permutation(len(stated)) for _ in range(SHUFFLES))
    found = np.array([(stated[order] & true).sum() for order in orders]) / true.sum()
    low, high = percentile_interval(found) or (None, None)
    return {"value": float(found.mean()), "low": low, "high": high, "shuffles": SHUFFLES}


def stated_and_true(
    rows: Sequence[PredictionRow], test: Sequence[StudyRow]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels read from the reports and those of their scans, bool [scans, findings] each."""
    from ctscribe.text.labeler import label_report
    from ctscribe.text.sections import join_report

    truth = {study.scan_id: study.labels for study in test}
    stated = [label_report(join_report(row.findings, row.impression)) for row in rows]
    return np.array(stated, bool), np.array([truth[row.scan_id] for row in rows], bool)
