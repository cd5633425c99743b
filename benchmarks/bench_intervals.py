"""How often a 95 % interval holds the true score, by how it is made and by number of patients.

``make bench NAME=intervals ARGS=LABELLED_REPORTS.csv``; the file is that of `bench_labeler`.

The reports are the population, one a patient. Three systems answer all of them: two whose findings
are the true ones with errors, better for some patients than for others, each said in the report
with the nearest labels; and one that gives another patient's report. Patients are drawn from the
population with replacement, scored, and given intervals, over and over; the true score is that of
the population. Differences are those of the first two systems.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr, ndtri, stdtrit

from benchmarks.harness import labelled_reports, report, table
from ctscribe.base.files import sha256_of_file
from ctscribe.measure.intervals import jackknife_interval, sums_without_each
from ctscribe.measure.pool import Pool
from ctscribe.measure.scans import Answers, ScanReport
from ctscribe.measure.statistics import kind_of, scan_statistics, score_sums

NUM_PATIENTS = (10, 20, 40, 100, 300)
NUM_SAMPLES, NUM_DRAWS = 1000, 1000
ERRORS = {"poor": (0.25, 0.08), "good": (0.7, 0.05)}
"""System → mean share of findings seen, and of absent ones stated."""
METRICS = (
    *("coverage", "precision", "f1", "label_accuracy", "exact_match", "crg"),
    *("coverage_macro", "precision_macro", "f1_macro"),
    *("bleu_1", "bleu_4", "rouge_l", "cider"),
)
GROUPS = {"micro": METRICS[:6], "macro": METRICS[6:9], "words": METRICS[9:12], "CIDEr": ("cider",)}
TAILS = np.array([0.025, 0.975])
Values = Float64[np.ndarray, "values"]


def percentiles(value: float, without: Values, drawn: Values) -> tuple[float, float]:
    low, high = np.quantile(drawn, TAILS)
    return float(low), float(high)


def bca(value: float, without: Values, drawn: Values, *, student: bool) -> tuple[float, float]:
    """Bias-corrected and accelerated (Efron 1987); ``student`` takes t for normal quantiles."""
    below = (np.sum(drawn < value) + np.sum(drawn == value) / 2) / len(drawn)
    bias = ndtri(np.clip(below, 1 / (len(drawn) + 1), len(drawn) / (len(drawn) + 1)))
    gap = without.mean() - without
    spread = 6 * np.sum(gap**2) ** 1.5
    skew = np.sum(gap**3) / spread if spread else 0.0
    num = len(without)
    at = stdtrit(num - 1, TAILS) * np.sqrt(num / (num - 1)) if student else ndtri(TAILS)
    low, high = np.quantile(drawn, ndtr(bias + (bias + at) / (1 - skew * (bias + at))))
    return float(low), float(high)


METHODS: dict[str, Callable[..., tuple[float, float]]] = {
    "percentiles": percentiles,
    "BCa": partial(bca, student=False),
    "BCa, Student's t": partial(bca, student=True),
}
"""Name → interval of a score, its values without each patient, and those of draws."""
BAYES, JACKKNIFE, OURS = "Bayesian percentiles", "jackknife, Student's t", "the same on log odds"


def systems(reports: list[ScanReport]) -> dict[str, Float64[np.ndarray, "reports columns"]]:
    """Statistics of what each system answers to every report."""
    rng, pool = np.random.default_rng(0), Pool.of(reports)
    true = np.array([each.labels for each in reports])
    found = {}
    for name, (seen, alarms) in ERRORS.items():
        skill = 2 * rng.beta(4, 4, (len(true), 1))
        stated = rng.random(true.shape) < np.where(true, np.clip(seen * skill, 0, 1), alarms)
        labels = [tuple(map(int, row)) for row in stated]
        asked = [replace(each, labels=row) for each, row in zip(reports, labels, strict=True)]
        chosen = pool.draw(asked, rng, by_labels=True)
        answers = Answers(tuple(each.sections for each in chosen), tuple(labels))
        found[name] = scan_statistics(answers, reports, "ctrate-raw")
    others = pool.draw(reports, rng, by_labels=False)
    answers = Answers(tuple(r.sections for r in others), tuple(r.labels for r in others))
    return found | {"another patient's": scan_statistics(answers, reports, "ctrate-raw")}


Scores = Mapping[str, Mapping[str, Values]]
"""System, or the difference of two → metric → values."""


def with_difference(scores: dict[str, dict[str, Values]]) -> Scores:
    poor, good = scores["poor"], scores["good"]
    return scores | {"difference": {name: good[name] - poor[name] for name in METRICS}}


def intervals(
    metric: str, system: str, values: Values, num: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Every method's interval of the values of all patients, without each, and of the draws."""
    value, without, drawn, bayes = np.split(values, [1, 1 + num, 1 + num + NUM_DRAWS])
    point = float(value[0])
    without, drawn = (each[np.isfinite(each)] for each in (without, drawn))
    for name, method in METHODS.items():
        yield name, method(point, without, drawn)
    yield BAYES, percentiles(point, without, bayes)
    yield JACKKNIFE, jackknife_interval(point, without)
    kind = kind_of(metric).difference if system == "difference" else kind_of(metric)
    yield OURS, jackknife_interval(point, without, kind.highest)


def coverage(rows: Mapping[str, np.ndarray], num: int) -> dict[str, dict[str, dict[str, float]]]:
    """Metric → system → method → share of the samples whose interval holds the true score."""
    rng = np.random.default_rng(num)
    draws = rng.multinomial(num, [1 / num] * num, NUM_DRAWS).astype(float)
    smooth = num * rng.dirichlet(np.ones(num), NUM_DRAWS)
    true = with_difference({s: score_sums(each.sum(0, keepdims=True)) for s, each in rows.items()})
    held: dict[str, dict[str, dict[str, float]]] = {name: {s: {} for s in true} for name in METRICS}
    for _ in range(NUM_SAMPLES):
        taken = rng.integers(len(next(iter(rows.values()))), size=num)
        scores = {}
        for system, each in rows.items():
            sample = each[taken]
            sums = [*sums_without_each(sample), draws @ sample, smooth @ sample]
            scores[system] = score_sums(np.vstack(sums))
        for system, found in with_difference(scores).items():
            for metric in METRICS:
                truth, counts = float(true[system][metric][0]), held[metric][system]
                for name, (low, high) in intervals(metric, system, found[metric], num):
                    share = (low <= truth <= high) / NUM_SAMPLES
                    counts[name] = counts.get(name, 0.0) + share
    return held


def measure(path: Path) -> dict[str, Any]:
    reports = labelled_reports(path)
    rows = systems(reports)
    return {
        "reports": len(reports),
        "reports_sha256": sha256_of_file(path),
        "samples": NUM_SAMPLES,
        "draws": NUM_DRAWS,
        "coverage": {str(num): coverage(rows, num) for num in NUM_PATIENTS},
    }


def page(raw: dict[str, Any]) -> dict[str, Any]:
    def spread(held: Any, metrics: tuple[str, ...], name: str, *, paired: bool) -> str:
        shares = [
            of_method[name]
            for metric in metrics
            for system, of_method in held[metric].items()
            if (system == "difference") == paired
        ]
        return f"{min(shares):.3f} – {max(shares):.3f}"

    names = (*METHODS, BAYES, JACKKNIFE, OURS)

    def rows(*, paired: bool) -> str:
        found = [
            (group, num, *(spread(held, metrics, name, paired=paired) for name in names))
            for group, metrics in GROUPS.items()
            for num, held in raw["coverage"].items()
        ]
        return table(("scores", "patients", *names), found)

    error = np.sqrt(0.95 * 0.05 / raw["samples"])
    return {**raw, "error": error, "scores": rows(paired=False), "differences": rows(paired=True)}


if __name__ == "__main__":
    report("intervals", measure, page)
