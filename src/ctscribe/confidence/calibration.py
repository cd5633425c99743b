"""``calibration.json``: what turns a run's log-odds into probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ctscribe.confidence.temperature import Temperature
from ctscribe.evidence.sentences import Sentence
from ctscribe.files import read_json
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import Row

FILE = "calibration.json"


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


def sentence_log_odds(
    sentence: Sentence,
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
        num_tokens: How many.
        probabilities: Of the 18 findings, calibrated.
    """
    said = [probabilities[i] for i in sentence.present]
    said += [1 - probabilities[i] for i in sentence.absent]
    if not said or not num_tokens:
        return None
    return _log_odds(float(np.exp(log_prob / num_tokens))), _log_odds(min(said))


def sentence_confidences(
    sentences: Sequence[Sentence],
    scores: Sequence[tuple[float, int]],
    probabilities: Sequence[float],
    calibration: Calibration,
) -> list[float | None]:
    """Calibrated probability that each sentence is true of the findings it names.

    Args:
        sentences: Of one report.
        scores: Log-probability and number of tokens of each.
        probabilities: Of the 18 findings, calibrated.
        calibration: The run's.
    """
    found: list[float | None] = []
    for sentence, (log_prob, num_tokens) in zip(sentences, scores, strict=True):
        odds = sentence_log_odds(sentence, log_prob, num_tokens, probabilities)
        found.append(None if odds is None else float(calibration.sentences(np.array([odds]))[0]))
    return found


def is_true(sentence: Sentence, labels: Sequence[int]) -> bool:
    """Whether all findings it affirms are there and none it denies."""
    return all(labels[i] for i in sentence.present) and not any(labels[i] for i in sentence.absent)


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))
