"""``calibration.json``: turns raw log-odds of findings and of sentences into probabilities.

`measure.calibrate` fits and writes it; here it is read and applied.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ValidationError

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import object_in, read_json
from ctscribe.base.recipe import GenerateConfig
from ctscribe.base.rows import Row
from ctscribe.learn.model.temperature import Temperature
from ctscribe.write.evidence import ReadSentence

FILE = "calibration.json"
TUNED = "tuned.json"
"""File with the decoding settings that `tune` chose."""


AnyFitted = TypeVar("AnyFitted", bound=BaseModel)


class Calibration(Row):
    """Fitted on the validation split; kept in the run's folder."""

    weights_sha256: str
    """Of the checkpoint that was calibrated."""
    finding_slope: float
    finding_offsets: tuple[float, ...]
    """Per finding, in nats."""
    threshold: float
    """Probability from which the template states a finding."""
    cue_threshold: float
    """Probability from which a prompt states a finding."""
    remark_bounds: tuple[float, float] | None = None
    """(low, high): a true report hardly ever states a finding less probable than ``low`` or leaves
    out one more probable than ``high``; None where there were too few scans to fit them."""
    sentence_slopes: tuple[float, float] | None = None
    """Slopes for the log-odds of a sentence's tokens and of its findings; None before the fit."""
    sentence_offset: float = 0.0

    def findings(
        self, logits: Float64[np.ndarray, "studies 18"]
    ) -> Float64[np.ndarray, "studies 18"]:
        """Calibrated probabilities of the 18 findings."""
        return Temperature((self.finding_slope,), self.finding_offsets).of_table(logits)

    def sentences(
        self, log_odds: Float64[np.ndarray, "sentences 2"]
    ) -> Float64[np.ndarray, "sentences"]:
        """Calibrated probabilities that sentences are true of the findings they name."""
        assert self.sentence_slopes is not None  # callers check it
        fitted = Temperature(self.sentence_slopes, (self.sentence_offset,))
        return fitted.apply(log_odds, np.zeros(len(log_odds), int))


def read_calibration(run_dir: Path, weights_sha256: str) -> Calibration | None:
    """A run's calibration; None where there is none, or it belongs to other weights.

    Raises:
        CtscribeError: ``E_FITTED`` when another version wrote it.
    """
    found = _fitted(run_dir / FILE)
    calibration = object_in(found, "calibration")
    if calibration.get("weights_sha256") != weights_sha256:
        return None
    return _of_this_version(run_dir / FILE, Calibration, calibration)


def read_tuned(run_dir: Path, weights_sha256: str) -> GenerateConfig | None:
    """The decoding settings that `tune` chose; None where it was not run for these weights.

    Raises:
        CtscribeError: ``E_FITTED`` when another version wrote it.
    """
    found = _fitted(run_dir / TUNED)
    if found.get("weights_sha256") != weights_sha256:
        return None
    return _of_this_version(run_dir / TUNED, GenerateConfig, found.get("generate"))


def _fitted(path: Path) -> dict[str, Any]:
    """A stage's JSON in a run's folder; empty where the stage was not run."""
    return read_json(path) if path.is_file() else {}


def _of_this_version(path: Path, kind: type[AnyFitted], value: object) -> AnyFitted:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        knob = ".".join(map(str, first["loc"]))
        raise CtscribeError(
            "E_FITTED",
            f"{path} must be of this version, but {knob}: {first['msg'].lower()}",
        ) from error


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

    The first are the log-odds of the geometric mean of its tokens' probabilities. The second are
    those of its least probable claim. None for a sentence that names no finding.

    Args:
        sentence: The sentence.
        log_prob: Sum over its tokens.
        num_tokens: Number of its tokens.
        probabilities: Calibrated, of the 18 findings.
    """
    claims = [probabilities[i] for i in sentence.present]
    claims += [1 - probabilities[i] for i in sentence.absent]
    if not claims or not num_tokens:
        return None
    return _log_odds(float(np.exp(log_prob / num_tokens))), _log_odds(min(claims))


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))


def is_true(sentence: ReadSentence, labels: Sequence[int]) -> bool:
    """Whether the labels agree with all findings that a sentence affirms and denies."""
    return all(labels[i] for i in sentence.present) and not any(labels[i] for i in sentence.absent)
