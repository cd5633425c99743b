"""A reader of reports that is no rule and was never a reward: regressions on runs of words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32

LONGEST = 3
"""Words in a row that are looked for together, so that "no" is read with what it denies."""
SEEN_IN = 3
"""Reports that a run of words must be in to count."""
RIDGE = 1e-4
"""Of 1e-4, 1e-3 and 1e-2 the one that read validation reports of other phantoms best: F1 0.992."""


@final
class Reader:
    """A logistic regression per finding on which runs of one to three words a report has.

    Args:
        texts: Reports to learn from.
        labels: Their true findings [texts, 18].
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[Sequence[int]]) -> None:
        seen = Counter(run for text in texts for run in _runs(text))
        known = sorted(run for run, count in seen.items() if count >= SEEN_IN)
        self._place = {run: number for number, run in enumerate(known)}
        self._weights = _fit(self._features(texts), torch.tensor(labels, dtype=torch.float32))

    def read(self, texts: Sequence[str]) -> Bool[np.ndarray, "texts 18"]:
        """Whether each text affirms each finding; a `ReadFindings`."""
        found = torch.from_numpy(self._features(texts)) @ self._weights
        return np.asarray((found > 0).numpy())

    def _features(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts runs+1"]:
        """Whether each run of words is there; 1 at last."""
        features = np.zeros((len(texts), len(self._place) + 1), np.float32)
        features[:, -1] = 1
        for row, text in zip(features, texts, strict=True):
            row[[self._place[run] for run in _runs(text) if run in self._place]] = 1
        return features


def _runs(text: str) -> set[str]:
    """Of one to three words; none passes the end of a sentence."""
    found = set[str]()
    for sentence in re.split(r"[.;:\n]", text.lower()):
        words = re.findall(r"\w+", sentence)
        found |= {
            " ".join(words[start : start + length])
            for length in range(1, LONGEST + 1)
            for start in range(len(words) - length + 1)
        }
    return found


def _fit(features: np.ndarray, labels: torch.Tensor) -> torch.Tensor:
    """Weights [runs + 1, 18] of least cross entropy with a ridge."""
    inputs = torch.from_numpy(features)
    weights = torch.zeros(features.shape[1], labels.shape[1], requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        error = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, labels)
        total = error + RIDGE * weights.square().sum() / labels.shape[1]
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()
