"""Does one run score higher than another, or could chance have made the difference?

In: predictions of two systems or more, each of one training seed or several, and their
references. Out: the differences from the first, with intervals and corrected p-values.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, ReportedRow
from ctscribe.measure.intervals import (
    Jackknife,
    Scorer,
    approximate_randomisation,
    holm,
    sum_by_patient,
    sums_without_each,
    with_interval,
)
from ctscribe.measure.predictions import Noticed, read_predictions
from ctscribe.measure.radeval import keys_of, mean_values, score_systems, value_statistics
from ctscribe.measure.references import References
from ctscribe.measure.scans import (
    RULES,
    Answers,
    LabelSource,
    ScanReport,
    as_reports,
    count_scans,
    match_predictions,
    one_row_per_scan,
)
from ctscribe.measure.statistics import all_metrics, kind_of, scan_statistics, score_sums

ALPHA = 0.05
"""Chance of any false claim in the whole family of comparisons."""

Sums = Float64[np.ndarray, "patients columns"]


def compare_predictions(
    paths: Mapping[str, Path],
    references: References,
    config: EvaluateConfig,
    source: LabelSource = RULES,
) -> dict[str, Any]:
    """Reads each system's predictions and compares all with the first; see `compare`.

    Returns:
        What `compare` returns; ``base``, the name of the first; and ``inputs``, by hash.
    """
    studies, left_out, noticed = references.studies, references.left_out, Noticed()
    written = {
        name: [read_predictions(path, studies, left_out, noticed)] for name, path in paths.items()
    }
    base = next(iter(paths))
    found = compare(written.pop(base), written, studies, config, source)
    found["n"] |= references.facts() | noticed.facts()
    found["inputs"] = {
        "predictions_sha256": {name: sha256_of_file(path) for name, path in paths.items()},
        "references_sha256": references.sha256(),
    }
    return {"base": base} | found


def compare(
    base: Sequence[Sequence[PredictionRow]],
    others: Mapping[str, Sequence[Sequence[PredictionRow]]],
    references: Sequence[ReportedRow],
    config: EvaluateConfig,
    source: LabelSource = RULES,
) -> dict[str, Any]:
    """Differences other − base on the same scans, paired by patient.

    A system of several training seeds is scored over all their reports at once. A missing report
    counts as an empty one, as in `scores.evaluate`, and is listed.

    Args:
        base: The reports of each seed of the system that the others are compared with.
        others: System → the reports of each of its seeds.
        references: The studies all are scored on.
        config: Text profile; least number of trials, and their seed.
        source: Reads the findings of what was written.

    Returns:
        ``n`` (with ``trials``, and ``family``, the number of comparisons), ``alpha``,
        ``missing_of_base`` and ``missing`` (of each system): scans without a report, and
        ``differences``: system → metric → ``difference``, ``low`` and ``high`` (`with_interval`),
        ``p`` of approximate randomisation, ``p_holm`` adjusted over all metrics of all systems,
        and ``holds`` when that is below alpha. A metric that is undefined here is left out.

    Raises:
        CtscribeError: As `match_predictions` and `radeval.score_systems`.
    """
    studies = one_row_per_scan(references)
    truth = as_reports(studies, source)
    jackknife = Jackknife.of([report.patient_id for report in truth])
    systems = (base, *others.values())
    matched = [[match_predictions(each, truth, source) for each in seeds] for seeds in systems]
    scorer, num_metrics = _scorer(config)
    missing_of_base, *missing = map(_missing, matched)
    one, *rest = _sums(matched, truth, jackknife, config)
    trials = enough_trials(config.resamples, num_metrics * len(others))
    found = [_differences(one, two, scorer, trials, config.seed) for two in rest]
    differences = dict(zip(others, found, strict=True))
    n = {"seed": config.seed, "trials": trials, "family": _adjust(differences)}
    return {
        "n": count_scans(studies) | n,
        "alpha": ALPHA,
        "missing_of_base": missing_of_base,
        "missing": dict(zip(others, missing, strict=True)),
        "differences": differences,
        "use": RESEARCH_USE,
    }


Matched = Sequence[tuple[Answers, list[str]]]
"""Of each seed of a system what `match_predictions` gives."""


def _missing(seeds: Matched) -> list[str]:
    """The scans of which one of the seeds has no report."""
    return [*dict.fromkeys(scan_id for _, found in seeds for scan_id in found)]


def _sums(
    systems: Sequence[Matched],
    truth: Sequence[ScanReport],
    jackknife: Jackknife,
    config: EvaluateConfig,
) -> list[Sums]:
    """Each system's sums, over all its seeds."""
    written = [answers.texts for seeds in systems for answers, _ in seeds]
    values = iter(score_systems(config.radeval, written, [report.text for report in truth]))
    sums = []
    for seeds in systems:
        rows = sum(scan_statistics(answers, truth, config.profile) for answers, _ in seeds)
        if config.radeval:
            rows = np.hstack([rows, sum(value_statistics(next(values)) for _ in seeds)])
        sums.append(sum_by_patient(np.asarray(rows), jackknife.patients))
    return sums


def _scorer(config: EvaluateConfig) -> tuple[Scorer, int]:
    """All metrics from the columns of `_sums`, and how many they are."""
    keys, num_metrics = keys_of(config.radeval), len(all_metrics(config.profile))
    score_ours = partial(score_sums, profile=config.profile)
    if not keys:
        return score_ours, num_metrics

    def score(totals: np.ndarray) -> dict[str, np.ndarray]:
        ours, values = np.split(totals, [-2 * len(keys)], axis=1)
        return score_ours(ours) | mean_values(values, keys)

    return score, num_metrics + len(keys)


def _differences(
    one: Sums, two: Sums, scorer: Scorer, trials: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Metric → two − one."""
    p_values = approximate_randomisation(one, two, scorer, trials, seed)
    of_one, of_two = ([*map(scorer, sums_without_each(sums))] for sums in (one, two))
    table = {}
    for metric, p in p_values.items():
        point, without = (b[metric] - a[metric] for a, b in zip(of_one, of_two, strict=True))
        found = with_interval(point, without, kind_of(metric).difference)
        table[metric] = {"difference": found.pop("value"), **found, "p": p}
    return table


def _adjust(differences: Mapping[str, Mapping[str, dict[str, Any]]]) -> int:
    """Adds each difference's p by Holm over all of them; returns how many there are."""
    family = {
        (name, metric): row["p"]
        for name, rows in differences.items()
        for metric, row in rows.items()
    }
    for (name, metric), adjusted in holm(family).items():
        differences[name][metric] |= {"p_holm": adjusted, "holds": adjusted < ALPHA}
    return len(family)


def enough_trials(wanted: int, family: int) -> int:
    """Trials with which even the smallest p, 1/(trials + 1), can hold after Holm's correction."""
    return max(wanted, int(np.ceil(2 * family / ALPHA)))
