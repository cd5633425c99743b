"""``calibration.json``: what turns a run's log-odds into probabilities.

In: raw log-odds of findings and of written sentences. Out: how probable it is that they are true.
`measure.calibrate` fits and writes it; here it is read and applied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize
from scipy.special import expit

from ctscribe.base.files import read_json
from ctscribe.base.rows import Row
from ctscribe.text.findings import FINDINGS
from ctscribe.write.evidence import ReadSentence

FILE = "calibration.json"
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
        """Calibrated probabilities of raw log-odds; ``groups`` holds each case's group number."""
        shift = np.array(self.offsets)[groups]
        return np.asarray(expit(log_odds @ np.array(self.slopes) + shift))


class Calibration(Row):
    """Fitted on the validation split; kept in the run's folder."""

    weights_sha256: str
    """Of the checkpoint that was calibrated."""
    finding_slope: float
    finding_offsets: tuple[float, ...]
    """Per finding, in nats."""
    sentence_slopes: tuple[float, float]
    """For the log-odds of a sentence's tokens and of its findings."""
    sentence_offset: float
    threshold: float
    """Probability from which the template states a finding; best micro F1 on validation."""

    def findings(
        self, logits: Float64[np.ndarray, "studies 18"]
    ) -> Float64[np.ndarray, "studies 18"]:
        """Calibrated probabilities of the 18 findings."""
        fitted = Temperature((self.finding_slope,), self.finding_offsets)
        groups = np.tile(np.arange(len(FINDINGS)), len(logits))
        return fitted.apply(logits.reshape(-1, 1), groups).reshape(logits.shape)

    def sentences(
        self, log_odds: Float64[np.ndarray, "sentences 2"]
    ) -> Float64[np.ndarray, "sentences"]:
        """Calibrated probabilities that sentences are true of the findings they name."""
        fitted = Temperature(self.sentence_slopes, (self.sentence_offset,))
        return fitted.apply(log_odds, np.zeros(len(log_odds), int))


def read_calibration(run_dir: Path, weights_sha256: str) -> Calibration | None:
    """A run's calibration; None where there is none or it is of other weights."""
    path = run_dir / FILE
    if not path.is_file():
        return None
    found = Calibration.model_validate(read_json(path)["calibration"])
    return found if found.weights_sha256 == weights_sha256 else None


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
        num_groups: Of all groups, those without cases included.
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


def sentence_confidences(
    sentences: Sequence[ReadSentence],
    scores: Sequence[tuple[float, int]],
    probabilities: Sequence[float],
    calibration: Calibration,
) -> list[float | None]:
    """Calibrated probability that each sentence of a report is true of the findings it names.

    ``scores`` are the log-probability and number of tokens of each sentence, ``probabilities``
    the calibrated ones of the 18 findings.
    """
    found: list[float | None] = []
    for sentence, (log_prob, num_tokens) in zip(sentences, scores, strict=True):
        odds = sentence_log_odds(sentence, log_prob, num_tokens, probabilities)
        found.append(None if odds is None else float(calibration.sentences(np.array([odds]))[0]))
    return found


def sentence_log_odds(
    sentence: ReadSentence,
    log_prob: float,
    num_tokens: int,
    probabilities: Sequence[float],
) -> tuple[float, float] | None:
    """Raw log-odds that a sentence is true: by its tokens, and by the finding queries.

    The first are those of the geometric mean of its tokens' probabilities; the second those of
    the least probable thing it says.

    Args:
        sentence: Without a named finding there is nothing to be sure of, so the answer is None.
        log_prob: Of all its tokens.
        probabilities: Of the 18 findings, calibrated.
    """
    said = [probabilities[i] for i in sentence.present]
    said += [1 - probabilities[i] for i in sentence.absent]
    if not said or not num_tokens:
        return None
    return _log_odds(float(np.exp(log_prob / num_tokens))), _log_odds(min(said))


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))


def is_true(sentence: ReadSentence, labels: Sequence[int]) -> bool:
    """Whether all findings it affirms are there and none it denies."""
    return all(labels[i] for i in sentence.present) and not any(labels[i] for i in sentence.absent)
