"""β, the weight of the negative's term: constant, or steered so that a gap is kept."""

from pathlib import Path
from typing import final

from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import ObjectiveConfig

_FILE = "beta.json"
_MEMORY = 0.9
_RATE = 0.05
_RANGE = 10.0


@final
class Beta:
    """β of the next update, the same on all processes, continued after an interruption.

    Steered, β is raised while the gap is below its target and lowered above it: log β changes by
    5 % of the relative error of the gap's running mean (weight 0.9 on the past), at most 5 % an
    update, and stays within a factor of ten of where it started. Equal gaps give equal β, so
    processes that share their sums stay together.

    Source: integral control of a Lagrange multiplier, as for the KL weight in Ziegler et al.,
    arXiv:1909.08593, section 2.2; it makes the paper's "dynamic weight" one.
    """

    def __init__(self, objective: ObjectiveConfig, checkpoint: Path | None) -> None:
        self._objective = objective
        self.value = objective.beta
        self._mean_gap: float | None = None
        if checkpoint is not None:
            saved = read_json(checkpoint / _FILE)
            self.value, self._mean_gap = saved["value"], saved["mean_gap"]

    def learn(self, gap: float | None) -> None:
        """Takes into account an update whose pairs were ``gap`` nats apart, where it is steered.

        The gap is CE⁻ − CE⁺ over the tokens that count, the mean of all processes; None, where
        nothing was measured, keeps β.
        """
        if self._objective.beta_schedule == "constant" or gap is None:
            return
        past, target, start = self._mean_gap, self._objective.target_gap, self._objective.beta
        mean = gap if past is None else _MEMORY * past + (1 - _MEMORY) * gap
        error = min(1.0, max(-1.0, (target - mean) / target))
        value = self.value * (1 + _RATE * error)
        self.value, self._mean_gap = min(start * _RANGE, max(start / _RANGE, value)), mean

    def save(self, checkpoint: Path) -> None:
        """Writes what continues it into a checkpoint's folder."""
        write_json(checkpoint / _FILE, {"value": self.value, "mean_gap": self._mean_gap})
