"""Checked sentences of many scans → hit rates, overlaps and curves, with intervals by patient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ctscribe import RESEARCH_USE
from ctscribe.evaluate.intervals import (
    draw_patients,
    patient_index,
    sum_by_patient,
    with_interval,
)
from ctscribe.evidence.faithful import METHODS, Checked, hit_by_chance
from ctscribe.reports.findings import FINDINGS

TOP = (1, 3)
"""hit@k asks whether a true slice pair is among the first k."""


def summarise(checked: Sequence[tuple[str, Checked]], resamples: int, seed: int) -> dict[str, Any]:
    """Means over sentences that state one finding which is there.

    Args:
        checked: (patient, sentence).
        resamples: Bootstrap draws of patients.
        seed: Of the draws.

    Returns:
        ``all`` sentences and ``focal`` ones, whose finding is on at most half of the slice pairs:
        ``hit@1`` and ``hit@3`` per method and by chance, ``overlap`` of boxes, mean ``deletion``
        and ``insertion`` curves in nats; per finding its number and hits.
    """
    groups = {
        "all": list(checked),
        "focal": [(who, each) for who, each in checked if 2 * each.num_true <= each.num_pairs],
    }
    return {
        **{name: _group(group, resamples, seed) for name, group in groups.items()},
        "per_finding": _per_finding([each for _, each in checked]),
        "use": RESEARCH_USE,
    }


def _group(checked: Sequence[tuple[str, Checked]], resamples: int, seed: int) -> dict[str, Any]:
    sentences = [each for _, each in checked]
    methods = [name for name in METHODS if all(name in each.rank for each in sentences)]

    def mean(value: Callable[[Checked], float | None]) -> dict[str, float | None]:
        known = [(who, v) for who, each in checked if (v := value(each)) is not None]
        return _mean(known, resamples, seed)

    found: dict[str, Any] = {"sentences": len(sentences), "scans": len({w for w, _ in checked})}
    for k in TOP:
        hits: dict[str, Any] = {
            name: mean(lambda each, name=name, k=k: float(each.rank[name] <= k))  # type: ignore[misc]
            for name in methods
        }
        hits["chance"] = mean(
            lambda each, k=k: hit_by_chance(each.num_pairs, each.num_true, k)  # type: ignore[misc]
        )
        found[f"hit@{k}"] = hits
    found["overlap"] = {
        name: mean(lambda each, name=name: each.overlap.get(name))  # type: ignore[misc]
        for name in ("attention", "random")
    }
    for kind in ("deletion", "insertion"):
        found[kind] = {
            name: np.mean([getattr(each, kind)[name] for each in sentences], axis=0).tolist()
            for name in methods
            if sentences
        }
    return found


def _mean(
    values: Sequence[tuple[str, float]], resamples: int, seed: int
) -> dict[str, float | None]:
    if not values:
        return {"value": None, "low": None, "high": None}
    patients = patient_index([who for who, _ in values])
    rows = np.array([[value, 1.0] for _, value in values])
    sums = sum_by_patient(rows, patients)
    drawn = draw_patients(len(sums), resamples, seed) @ sums
    return with_interval(rows[:, :1].mean(0), drawn[:, 0] / drawn[:, 1])


def _per_finding(checked: Sequence[Checked]) -> list[dict[str, Any]]:
    rows = []
    for number, finding in enumerate(FINDINGS):
        mine = [each for each in checked if each.finding == number]
        methods = [name for name in METHODS if mine and name in mine[0].rank]
        rows.append(
            {"finding": finding, "sentences": len(mine)}
            | {
                f"hit@{k}": {
                    name: float(np.mean([each.rank[name] <= k for each in mine]))
                    for name in methods
                }
                for k in TOP
            }
        )
    return rows
