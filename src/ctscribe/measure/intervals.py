"""How certain a score is: resampling by patient, paired differences, and Holm's correction.

Scans of one patient are not independent, so patients are drawn, each with all its scans. Scores
are functions of sums over scans, so all draws together are one matrix product, and two systems
that share the draws are compared within each draw.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np
from jaxtyping import Float64, Int64

Scorer = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Sums of sufficient statistics [draws, columns] → metric → one value per draw."""

Name = TypeVar("Name", bound=Hashable)
LEVEL = 0.95


@final
@dataclass(frozen=True)
class Resampler:
    """Draws of patients, shared by everything that is scored on the same scans.

    Attributes:
        patients: Number of each scan's patient.
        draws: How often each patient occurs in each draw.
    """

    patients: Int64[np.ndarray, "scans"]
    draws: Float64[np.ndarray, "draws patients"]

    @classmethod
    def of(cls, patient_ids: Sequence[str], resamples: int, seed: int) -> "Resampler":
        """Draws for scans of these patients."""
        patients = patient_index(patient_ids)
        return cls(patients, draw_patients(int(patients.max()) + 1, resamples, seed))

    def sums(
        self, statistics: Float64[np.ndarray, "scans columns"]
    ) -> tuple[Float64[np.ndarray, "1 columns"], Float64[np.ndarray, "draws columns"]]:
        """Sums over all scans, and over the scans of every draw."""
        by_patient = sum_by_patient(statistics, self.patients)
        return statistics.sum(axis=0, keepdims=True), self.draws @ by_patient


def draw_patients(
    num_patients: int, resamples: int, seed: int
) -> Float64[np.ndarray, "draws patients"]:
    """How often each patient occurs in each draw of as many patients, with replacement."""
    rng, draws = np.random.default_rng(seed), np.empty((resamples, num_patients))
    for times in draws:
        drawn = rng.integers(num_patients, size=num_patients)
        times[:] = np.bincount(drawn, minlength=num_patients)
    return draws


def patient_index(patient_ids: Sequence[str]) -> Int64[np.ndarray, "scans"]:
    """Number of each scan's patient, in alphabetical order, so that the order of scans is moot."""
    return np.unique(np.asarray(patient_ids, dtype=np.str_), return_inverse=True)[1]


def sum_by_patient(
    statistics: Float64[np.ndarray, "scans columns"], patients: Int64[np.ndarray, "scans"]
) -> Float64[np.ndarray, "patients columns"]:
    """Sums the rows of each patient."""
    sums = np.zeros((int(patients.max()) + 1, statistics.shape[1]))
    np.add.at(sums, patients, statistics)
    return sums


def with_interval(
    point: Float64[np.ndarray, "1"], drawn: Float64[np.ndarray, "draws"]
) -> dict[str, float | None]:
    """``value``, ``low`` and ``high`` of a score, None where it is undefined."""
    interval = percentile_interval(drawn)
    value = float(point[0]) if np.isfinite(point[0]) else None
    low, high = interval if interval and value is not None else (None, None)
    return {"value": value, "low": low, "high": high}


def mean_with_interval(
    values: Float64[np.ndarray, "cases"], patient_ids: Sequence[str], resamples: int, seed: int
) -> dict[str, float | None]:
    """``value``, ``low`` and ``high`` of a mean over cases of these patients; None without any."""
    if not len(values):
        return {"value": None, "low": None, "high": None}
    resampler = Resampler.of(patient_ids, resamples, seed)
    _, drawn = resampler.sums(np.stack([values, np.ones(len(values))], axis=1))
    return with_interval(np.mean(values, keepdims=True), drawn[:, 0] / drawn[:, 1])


def percentile_interval(values: Float64[np.ndarray, "draws"]) -> tuple[float, float] | None:
    """The central 95 % of the draws; None where the score is defined in none of them."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def approximate_randomisation(
    first: Float64[np.ndarray, "patients columns"],
    second: Float64[np.ndarray, "patients columns"],
    scorer: Scorer,
    trials: int,
    seed: int,
) -> dict[str, float]:
    """Two-sided p-values for the difference of two systems on the same patients.

    In every trial each patient's rows change sides with probability one half; k trials differ
    at least as much as was observed, and p = (k + 1) / (trials + 1), so it is never 0
    (Noreen 1989).

    Returns:
        Metric → p; a metric that is undefined for the observed data is left out.
    """
    swap = np.random.default_rng(seed).integers(2, size=(trials, len(first))).astype(np.float64)
    # Swapping moves d = second − first from one sum to the other.
    moved = swap @ (second - first)
    ours = scorer(first.sum(axis=0) + moved)
    theirs = scorer(second.sum(axis=0) - moved)
    whole = [scorer(rows.sum(axis=0, keepdims=True)) for rows in (first, second)]
    p_values = {}
    for metric, values in ours.items():
        observed = abs(float(whole[0][metric][0] - whole[1][metric][0]))
        if not np.isfinite(observed):
            continue
        # Sums of floats in another order may differ in the last digits; ties count as extreme.
        extreme = np.abs(values - theirs[metric]) >= observed - 1e-12
        p_values[metric] = (int(extreme.sum()) + 1) / (trials + 1)
    return p_values


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjusts a family of p-values so that the chance of any false claim stays bounded.

    Holm 1979: the i-th smallest of m is multiplied by m − i + 1, never below its predecessor,
    never above 1.
    """
    adjusted: dict[Name, float] = {}
    previous = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        previous = min(1.0, max(previous, p * (len(p_values) - rank)))
        adjusted[name] = previous
    return {name: adjusted[name] for name in p_values}
