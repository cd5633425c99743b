"""Scores of the study's arms, averaged over seeds, and paired differences from Origin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np

from ctscribe.measure.intervals import (
    approximate_randomisation,
    draw_patients,
    holm,
    percentile_interval,
    sum_by_patient,
)
from ctscribe.measure.language import NUM_LANGUAGE_COLUMNS, language_scores

METRICS = ("coverage", "precision", "f1", "bleu_4", "gap")
RESAMPLES, SEED = 2000, 0
_MATCHES = ("matches_1", "matches_2", "matches_3", "matches_4")
_COLUMNS = ("hits", "false_alarms", "misses", *_MATCHES, "words", "true_words", "own_ce")
_COLUMNS += ("other_ce", "written_1", "written_2", "written_3", "written_4", "scans")

Cells = Sequence[Mapping[str, Any]]


@final
@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval over patients."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Comparison:
    """An arm minus Origin, on the seeds both have."""

    difference: float
    low: float
    high: float
    p_holm: float
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimates(cells: Cells) -> dict[str, Estimate]:
    sums = by_patient(cells)
    point = mean_scores(sums.sum(axis=0, keepdims=True), len(cells))
    drawn = mean_scores(draw_patients(len(sums), RESAMPLES, SEED) @ sums, len(cells))
    found = {}
    for metric in METRICS:
        low, high = percentile_interval(drawn[metric]) or (np.nan, np.nan)
        found[metric] = Estimate(float(point[metric][0]), low, high)
    return found


def compare_with_origin(cells: Mapping[str, Cells], metric: str) -> dict[str, Comparison]:
    origin = {cell["seed"]: cell for cell in cells["origin"]}
    pairs = {}
    for arm, runs in cells.items():
        common = [run for run in runs if run["seed"] in origin]
        if arm != "origin" and common:
            pairs[arm] = common, [origin[run["seed"]] for run in common]
    tested = {arm: _difference(*pair, metric) for arm, pair in pairs.items()}
    adjusted = holm({arm: p for arm, (_, _, _, p, _) in tested.items()})
    return {
        arm: Comparison(value, low, high, adjusted[arm], by_seed)
        for arm, (value, low, high, _, by_seed) in tested.items()
    }


def _difference(
    runs: Cells, origins: Cells, metric: str
) -> tuple[float, float, float, float, tuple[float, ...]]:
    ours, theirs = by_patient(runs), by_patient(origins)
    scorer = partial(mean_scores, num_seeds=len(runs))
    draws = draw_patients(len(ours), RESAMPLES, SEED)
    drawn = scorer(draws @ ours)[metric] - scorer(draws @ theirs)[metric]
    low, high = percentile_interval(drawn) or (np.nan, np.nan)
    p = approximate_randomisation(ours, theirs, scorer, RESAMPLES, SEED)[metric]
    by_seed = tuple(
        float(one[metric][0] - other[metric][0])
        for one, other in zip(*(map(_alone, side) for side in (runs, origins)), strict=True)
    )
    return float(np.mean(by_seed)), low, high, p, by_seed


def _alone(cell: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return mean_scores(by_patient([cell]).sum(axis=0, keepdims=True), 1)


def by_patient(cells: Cells) -> np.ndarray:
    """Sums per patient, the seeds' columns side by side: [patients, seeds × columns]."""
    blocks = []
    for cell in cells:
        test = {name: np.array(text.split(), float) for name, text in cell["test"].items()}
        test |= {f"written_{n}": np.maximum(0, test["words"] - n + 1) for n in (1, 2, 3, 4)}
        test["scans"] = np.ones_like(test["hits"])
        columns = np.stack([test[name] for name in _COLUMNS], 1)
        blocks.append(sum_by_patient(columns, test["patient"].astype(np.int64)))
    return np.hstack(blocks)


def mean_scores(totals: np.ndarray, num_seeds: int) -> dict[str, np.ndarray]:
    """Each metric from sums, seed by seed, then averaged over the seeds; one value per row."""
    seeds = [_scores(part) for part in np.split(totals, num_seeds, axis=1)]
    return {metric: np.mean([seed[metric] for seed in seeds], axis=0) for metric in METRICS}


def _scores(totals: np.ndarray) -> dict[str, np.ndarray]:
    at = {name: totals[:, k] for k, name in enumerate(_COLUMNS)}
    language = np.zeros((len(totals), NUM_LANGUAGE_COLUMNS))
    bleu = (*_MATCHES, "written_1", "written_2", "written_3", "written_4", "words", "true_words")
    language[:, : len(bleu)] = np.stack([at[name] for name in bleu], 1)
    language[:, -1] = at["scans"]
    hits, false, missed = at["hits"], at["false_alarms"], at["misses"]
    return {
        "coverage": hits / (hits + missed),
        "precision": hits / np.maximum(hits + false, 1),
        "f1": 2 * hits / (2 * hits + false + missed),
        "bleu_4": language_scores(language)["bleu_4"],
        "gap": (at["other_ce"] - at["own_ce"]) / at["scans"] / 1e4,
    }
