"""Learning curves: runs of any length, compared after equal reports or after equal CPU time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Cell, Draws

Point = tuple[int, int]
"""Percent of the training patients, and passes over their scans; a run of its own each."""
Runs = Mapping[int, Cell]
"""Seed → its cell, with ``seconds``, ``positives`` and the scores of all draws as ``drawn``."""


def mean(runs: Runs, seeds: Sequence[int], metric: str) -> Draws:
    """Of some seeds, draw by draw."""
    return np.asarray(np.mean([runs[seed]["drawn"][metric] for seed in seeds], axis=0))


def seconds(runs: Runs, seeds: Sequence[int]) -> float:
    """CPU seconds of training, mean of some seeds."""
    return float(np.mean([runs[seed]["seconds"] for seed in seeds]))


@dataclass(frozen=True)
class Curves:
    """The runs that have ended, by arm and point; every arm is compared with ``base``."""

    ended: Mapping[tuple[str, Point], Runs]
    base: str

    def seeds(self, arm: str, point: Point) -> list[int]:
        """Those with which both the arm and the base have ended."""
        runs, others = (self.ended.get((each, point), {}) for each in (arm, self.base))
        return [seed for seed in runs if seed in others]

    def cost(self, arm: str, point: Point) -> float:
        """CPU seconds, times the base's."""
        seeds = self.seeds(arm, point)
        ours, others = (seconds(self.ended[each, point], seeds) for each in (arm, self.base))
        return ours / others

    def per_report(self, arm: str, point: Point, metric: str) -> Draws | None:
        """Arm − base after the same reports; None where no seed has both."""
        seeds = self.seeds(arm, point)
        if not seeds:
            return None
        ours, others = (mean(self.ended[each, point], seeds, metric) for each in (arm, self.base))
        return np.asarray(ours - others)

    def per_second(
        self, arm: str, point: Point, metric: str, among: Sequence[Point]
    ) -> Draws | None:
        """Arm − base after the same CPU time.

        The base's score lies on the straight line between its two neighbouring points of
        ``among``, over the logarithm of CPU seconds; None outside of them.
        """
        seeds = self.seeds(arm, point)
        others = [self.ended.get((self.base, each), {}) for each in among]
        known = [runs for runs in others if seeds and set(seeds) <= set(runs)]
        known.sort(key=lambda runs: seconds(runs, seeds))
        times = np.log([seconds(runs, seeds) for runs in known])
        if not known:
            return None
        at = np.log(seconds(self.ended[arm, point], seeds))
        after = int(np.searchsorted(times, at))
        if after in (0, len(times)):
            return None
        share = (at - times[after - 1]) / (times[after] - times[after - 1])
        before, behind = (mean(runs, seeds, metric) for runs in known[after - 1 : after + 1])
        ours = mean(self.ended[arm, point], seeds, metric)
        return np.asarray(ours - (1 - share) * before - share * behind)
