"""Does one run score higher than another, or could chance have made the difference?"""

from collections.abc import Sequence
from typing import Any

from ctscribe.config import EvaluateConfig
from ctscribe.evaluate.intervals import (
    approximate_randomisation,
    draw_patients,
    holm,
    patient_index,
    percentile_interval,
    sum_by_patient,
)
from ctscribe.evaluate.scans import as_reports, match_predictions, one_row_per_scan
from ctscribe.evaluate.scores import scan_statistics, score_sums
from ctscribe.rows import PredictionRow, StudyRow

ALPHA = 0.05


def compare(
    first: Sequence[PredictionRow],
    second: Sequence[PredictionRow],
    references: Sequence[StudyRow],
    config: EvaluateConfig,
) -> dict[str, dict[str, Any]]:
    """Differences first − second on the same scans, paired by patient.

    Args:
        first: Reports of one run.
        second: Reports of another run on the same scans.
        references: The studies both are scored on.
        config: Draws and trials, and their seed.

    Returns:
        Metric → ``difference``, its 95 % interval ``low`` and ``high`` over paired draws of
        patients, ``p`` of approximate randomisation, ``p_holm`` adjusted over all metrics, and
        ``holds`` when the latter is below 0.05. A metric undefined on these scans is left out.
    """
    truth = as_reports(one_row_per_scan(references))
    patients = patient_index([report.patient_id for report in truth])
    one, two = (
        sum_by_patient(scan_statistics(match_predictions(rows, truth)[0], truth), patients)
        for rows in (first, second)
    )
    p_values = approximate_randomisation(one, two, score_sums, config.resamples, config.seed)
    adjusted = holm(p_values)
    draws = draw_patients(len(one), config.resamples, config.seed)
    drawn_one, drawn_two = score_sums(draws @ one), score_sums(draws @ two)
    point_one, point_two = (score_sums(sums.sum(axis=0, keepdims=True)) for sums in (one, two))
    table = {}
    for metric, p in p_values.items():
        low, high = percentile_interval(drawn_one[metric] - drawn_two[metric]) or (None, None)
        table[metric] = {
            "difference": float(point_one[metric][0] - point_two[metric][0]),
            "low": low,
            "high": high,
            "p": p,
            "p_holm": adjusted[metric],
            "holds": adjusted[metric] < ALPHA,
        }
    return table
