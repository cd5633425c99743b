"""β of every update of a run, the same on all processes, continued after an interruption."""

from dataclasses import asdict
from pathlib import Path
from typing import final

from ctscribe.files import read_json, write_json
from ctscribe.objectives.beta import Beta, Schedule, steered, warmed_up

_FILE = "beta.json"


@final
class BetaControl:
    """Follows one of the schedules of `objectives.beta`.

    Args:
        schedule: constant, warmup or steered.
        beta: Weight of the negative's term: throughout, after the warm-up, or to start from.
        num_warmup_steps: Updates until it is reached (warmup).
        target_gap: CE⁻ − CE⁺ over the tokens in scope to steer to, nats (steered).
        checkpoint: Folder to continue from, or None.
    """

    def __init__(
        self,
        schedule: Schedule,
        beta: float,
        num_warmup_steps: int,
        target_gap: float,
        checkpoint: Path | None,
    ) -> None:
        self._schedule, self._start = schedule, beta
        self._num_warmup_steps, self._target_gap = num_warmup_steps, target_gap
        self._beta = Beta(beta)
        if checkpoint is not None:
            self._beta = Beta(**read_json(checkpoint / _FILE))

    def at(self, step: int) -> float:
        """β of the update after ``step`` others."""
        if self._schedule == "warmup":
            return warmed_up(self._start, step, self._num_warmup_steps)
        return self._beta.value

    def learn(self, gap: float | None) -> None:
        """Takes an update's gap, summed over the processes, into account."""
        if self._schedule == "steered":
            self._beta = steered(self._beta, gap, self._target_gap, self._start)

    def save(self, checkpoint: Path) -> None:
        """Writes what `at` needs from here on into a checkpoint's folder."""
        write_json(checkpoint / _FILE, asdict(self._beta))
