"""Temperature scaling: raw log-odds → calibrated probabilities; and the choice of a threshold.

Both are fitted on scans that the model was not trained on.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit

from ctscribe.base.errors import CtscribeError

_PRIOR_SD = 1.0
_CANDIDATES = np.linspace(0.05, 0.95, 91)


@final
@dataclass(frozen=True)
class Temperature:
    """p = σ(z · slopes + offset of its group).

    With one slope it is temperature scaling (Guo et al., ICML 2017); the temperature is the slope's
    inverse. An offset shifts a whole group, such as a finding that ten slices often miss.
    """

    slopes: tuple[float, ...]
    """One per source of log-odds."""
    offsets: tuple[float, ...]
    """One per group, in nats."""

    def apply(
        self, log_odds: Float64[np.ndarray, "cases sources"], groups: np.ndarray
    ) -> Float64[np.ndarray, "cases"]:
        """Calibrated probabilities; ``groups`` holds the number of each case's group."""
        shift = np.array(self.offsets)[groups]
        return np.asarray(expit(log_odds @ np.array(self.slopes) + shift))

    def of_table(
        self, log_odds: Float64[np.ndarray, "studies findings"]
    ) -> Float64[np.ndarray, "studies findings"]:
        """Calibrated probabilities of a table in which each column is a group."""
        groups = np.tile(np.arange(log_odds.shape[1]), len(log_odds))
        return self.apply(log_odds.reshape(-1, 1), groups).reshape(log_odds.shape)


def fit_temperature(
    log_odds: Float64[np.ndarray, "cases sources"],
    groups: np.ndarray,
    truth: Bool[np.ndarray, "cases"],
    num_groups: int,
) -> Temperature:
    """Fits slopes and offsets by maximum a posteriori on held-out cases.

    Offsets have a normal prior around 0, slopes one around 1, both with standard deviation 1. So a
    group with few cases stays near the others, and a fit always exists.

    Args:
        log_odds: Raw log-odds of each case, by each source.
        groups: Number of each case's group.
        truth: Whether each case is true.
        num_groups: Number of groups, those without cases included.
    """
    num_sources = log_odds.shape[1]
    signs = np.where(truth, 1.0, -1.0)

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, offsets = weights[:num_sources], weights[num_sources:]
        margins = signs * (log_odds @ slopes + offsets[groups])
        pull = -signs * expit(-margins)
        prior = np.concatenate([slopes - 1, offsets]) / _PRIOR_SD**2
        value = np.logaddexp(0, -margins).sum() + 0.5 * _PRIOR_SD**2 * (prior**2).sum()
        by_group = np.bincount(groups, pull, minlength=num_groups)
        return float(value), np.concatenate([log_odds.T @ pull, by_group]) + prior

    start = np.concatenate([np.ones(num_sources), np.zeros(num_groups)])
    found = minimize(cost, start, jac=True, method="L-BFGS-B").x.tolist()
    return Temperature(tuple(found[:num_sources]), tuple(found[num_sources:]))


def fit_table(
    log_odds: Float64[np.ndarray, "studies findings"], truth: Bool[np.ndarray, "studies findings"]
) -> Temperature:
    """`fit_temperature` with one slope for all columns and an offset for each."""
    count = log_odds.shape[1]
    groups = np.tile(np.arange(count), len(log_odds))
    return fit_temperature(log_odds.reshape(-1, 1), groups, truth.reshape(-1), count)


def choose_threshold(
    probability: Float64[np.ndarray, "*shape"],
    truth: Bool[np.ndarray, "*shape"],
    point: str = "f1",
) -> float:
    """The probability from which a case counts as positive, for an operating point.

    Args:
        probability: Of each case.
        truth: Whether each case is true.
        point: ``f1``: the threshold with the best micro F1. ``coverage=0.8``: the highest one with
            at least this recall. ``precision=0.8``: the lowest one with at least this precision.

    Raises:
        CtscribeError: ``E_OPERATING_POINT`` for another point, or one that no threshold reaches.
    """
    stated = probability.reshape(1, -1) >= _CANDIDATES[:, None]
    hits = (stated & truth.reshape(1, -1)).sum(1)
    scores = {
        "f1": 2 * hits / np.maximum(stated.sum(1) + truth.sum(), 1),
        "coverage": hits / np.maximum(truth.sum(), 1),
        "precision": hits / np.maximum(stated.sum(1), 1),
    }
    name, _, asked = point.partition("=")
    if point == "f1":
        return float(_CANDIDATES[int(scores["f1"].argmax())])
    try:
        reached = np.flatnonzero(scores[name] >= float(asked)).tolist() if name != "f1" else []
    except (KeyError, ValueError):
        reached = []
    if not reached:
        raise CtscribeError(
            "E_OPERATING_POINT",
            "the operating point must be f1, or coverage or precision with a value that some "
            f"threshold reaches on validation, as coverage=0.8, but it is {point}",
        )
    return float(_CANDIDATES[reached[-1] if name == "coverage" else reached[0]])
