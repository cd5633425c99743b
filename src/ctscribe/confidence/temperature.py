"""Log-odds → probabilities that come true as often as they say."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit

_PRIOR_SD = 1.0


@final
@dataclass(frozen=True)
class Temperature:
    """p = σ(z · slopes + offset of its group).

    One slope is temperature scaling (Guo et al., ICML 2017; the temperature is its inverse). The
    offsets move a whole group, such as a finding that ten slices often miss.
    """

    slopes: tuple[float, ...]
    """One per source of log-odds."""
    offsets: tuple[float, ...]
    """One per group, in nats."""

    def apply(
        self, log_odds: Float64[np.ndarray, "cases sources"], groups: np.ndarray
    ) -> Float64[np.ndarray, "cases"]:
        """Calibrated probabilities.

        Args:
            log_odds: Raw, from each source.
            groups: Number of each case's group.
        """
        shift = np.array(self.offsets)[groups]
        return np.asarray(expit(log_odds @ np.array(self.slopes) + shift))


def fit_temperature(
    log_odds: Float64[np.ndarray, "cases sources"],
    groups: np.ndarray,
    truth: Bool[np.ndarray, "cases"],
    num_groups: int,
) -> Temperature:
    """Maximises the likelihood of held-out truths.

    Offsets have a normal prior of standard deviation 1 and slopes one around 1 of the same width,
    so that a group with few cases stays near the rest, and a fit always exists.

    Args:
        log_odds: Raw, from each source.
        groups: Number of each case's group.
        truth: What was the case.
        num_groups: Groups there are, with cases or without.
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
