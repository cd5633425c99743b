"""All metrics of a system from one row of sufficient statistics per scan."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ctscribe.measure.clinical import (
    CLINICAL_METRICS,
    clinical_scores,
    clinical_signature,
    clinical_statistics,
)
from ctscribe.measure.intervals import CIDER, CORPUS, RATE, Jackknife, Kind, with_interval
from ctscribe.measure.language import (
    LANGUAGE_METRICS,
    NUM_LANGUAGE_COLUMNS,
    Profile,
    each_language_statistics,
    language_metrics,
    language_scores,
    language_signature,
    language_statistics,
)
from ctscribe.measure.scans import Answers, ScanReport

Statistics = Float64[np.ndarray, "rows 90"]
"""`language_statistics` and `clinical_statistics` side by side."""

ALL_METRICS = (*LANGUAGE_METRICS, *CLINICAL_METRICS)
"""Of every profile."""


def all_metrics(profile: Profile) -> tuple[str, ...]:
    """The metrics of language and of findings that a profile has."""
    return (*language_metrics(profile), *CLINICAL_METRICS)


def kind_of(metric: str) -> Kind:
    """The `Kind` of a metric's interval; unknown metrics are means over reports."""
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
    """`scan_statistics` of several systems; faster than one after the other."""
    texts = [report.compared(profile) for report in truth]
    labels = [report.labels for report in truth]
    written = [answers.compared(profile) for answers in systems]
    language = each_language_statistics(written, texts, profile)
    for answers, rows in zip(systems, language, strict=True):
        clinical = clinical_statistics(predictions=answers.labels, references=labels)
        yield np.hstack([rows, clinical])


def language_of_written(
    answers: Answers, truth: Sequence[ScanReport], missing: Collection[str], profile: Profile
) -> dict[str, float | int] | None:
    """Language scores over the scans that have a report, and their number as ``scans``.

    CT-RATE's challenge scores this way: its scorer drops missing reports. None for other profiles,
    and where no report or every report is missing.
    """
    written = [place for place, report in enumerate(truth) if report.scan_id not in missing]
    if profile != "vlm3d" or len(written) in (0, len(truth)):
        return None
    predictions = answers.compared(profile)
    rows = language_statistics(
        predictions=[predictions[place] for place in written],
        references=[truth[place].compared(profile) for place in written],
        profile=profile,
    )
    found = language_scores(rows.sum(axis=0, keepdims=True), profile)
    return {"scans": len(written), **{name: float(value[0]) for name, value in found.items()}}


def clinical_part(statistics: Statistics) -> Float64[np.ndarray, "rows 77"]:
    """The columns of `clinical_statistics`."""
    return statistics[:, NUM_LANGUAGE_COLUMNS:]


def score_sums(
    totals: Statistics, profile: Profile = "ctrate-raw"
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """The profile's `all_metrics` from sums of `scan_statistics`; one value per row."""
    return {
        **language_scores(totals[:, :NUM_LANGUAGE_COLUMNS], profile),
        **clinical_scores(clinical_part(totals), macro_of_all=profile == "vlm3d"),
    }


def score_table(
    statistics: Statistics, jackknife: Jackknife, profile: Profile, label_source: str
) -> dict[str, dict[str, Any]]:
    """Metric → value, its interval over patients, and its signature."""
    point, without = (score_sums(sums, profile) for sums in jackknife.sums(statistics))
    num_scans, of_all = len(statistics), profile == "vlm3d"
    signatures = {
        **{
            name: language_signature(name, profile, num_scans) for name in language_metrics(profile)
        },
        **{
            name: clinical_signature(name, label_source, num_scans, macro_of_all=of_all)
            for name in CLINICAL_METRICS
        },
    }
    return {
        name: with_interval(point[name], without[name], kind_of(name)) | {"signature": signature}
        for name, signature in signatures.items()
    }
