"""All metrics of a system from one row of sums per scan: `language` and `clinical` together."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.measure.clinical import (
    CLINICAL_METRICS,
    clinical_scores,
    clinical_signature,
    clinical_statistics,
)
from ctscribe.measure.intervals import CIDER, CORPUS, RATE, Kind, Resampler, with_interval
from ctscribe.measure.language import (
    LANGUAGE_METRICS,
    NUM_LANGUAGE_COLUMNS,
    Profile,
    each_language_statistics,
    language_scores,
    language_signature,
)
from ctscribe.measure.scans import Answers, ScanReport

Statistics = Float64[np.ndarray, "rows 89"]
"""`language_statistics` and `clinical_statistics` side by side."""

ALL_METRICS = (*LANGUAGE_METRICS, *CLINICAL_METRICS)


def kind_of(metric: str) -> Kind:
    """How the interval of one of `ALL_METRICS` is made."""
    if metric == "cider":
        return CIDER
    is_rate = metric in CLINICAL_METRICS and not metric.endswith("_macro")
    return RATE if is_rate else CORPUS


def scan_statistics(answers: Answers, truth: Sequence[ScanReport], profile: Profile) -> Statistics:
    """Sufficient statistics of every scan, for all metrics at once."""
    (rows,) = each_scan_statistics([answers], truth, profile)
    return rows


def each_scan_statistics(
    systems: Sequence[Answers], truth: Sequence[ScanReport], profile: Profile
) -> Iterator[Statistics]:
    """`scan_statistics` of several systems, in less time than one after the other."""
    texts, labels = [report.text for report in truth], [report.labels for report in truth]
    language = each_language_statistics([answers.texts for answers in systems], texts, profile)
    for answers, rows in zip(systems, language, strict=True):
        clinical = clinical_statistics(predictions=answers.labels, references=labels)
        yield np.hstack([rows, clinical])


def clinical_part(statistics: Statistics) -> Float64[np.ndarray, "rows 76"]:
    """The columns of `clinical_statistics`."""
    return statistics[:, NUM_LANGUAGE_COLUMNS:]


def score_sums(totals: Statistics) -> dict[str, Float64[np.ndarray, "rows"]]:
    """All metrics from sums of `scan_statistics`; one value per row."""
    return {
        **language_scores(totals[:, :NUM_LANGUAGE_COLUMNS]),
        **clinical_scores(clinical_part(totals)),
    }


def score_table(
    statistics: Statistics, resampler: Resampler, profile: Profile, label_source: str
) -> dict[str, dict[str, Any]]:
    """Metric → value, its interval over patients, and its signature."""
    point, without = (score_sums(sums) for sums in resampler.sums(statistics))
    num_scans = len(statistics)
    signatures = {
        **{name: language_signature(name, profile, num_scans) for name in LANGUAGE_METRICS},
        **{name: clinical_signature(name, label_source, num_scans) for name in CLINICAL_METRICS},
    }
    return {
        name: with_interval(point[name], without[name], kind_of(name)) | {"signature": signature}
        for name, signature in signatures.items()
    }
