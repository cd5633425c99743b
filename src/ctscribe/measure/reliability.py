"""Does a probability of 0.8 come true in eight cases of ten, and are the sure ones right?

In: probabilities, truths, and whose they are. Out: expected calibration error with its interval,
Brier score, the bins of a reliability diagram, the risk–coverage curve, and both drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ctscribe.measure.intervals import RATE, Jackknife, with_interval

NUM_BINS = 15
"""Of equal width (Guo et al., ICML 2017)."""


@final
@dataclass(frozen=True)
class Claims:
    """Probabilities and what was the case."""

    probability: Float64[np.ndarray, "cases"]
    truth: Bool[np.ndarray, "cases"]
    patients: tuple[str, ...]
    """Of each case; its cases are not independent."""


def reliability(claims: Claims) -> dict[str, Any]:
    """ECE with its interval over patients, bins to draw, and the risk–coverage curve.

    There must be at least one claim.
    """
    gaps = _gaps(claims.probability, claims.truth)
    point, without = map(_error_of, Jackknife.of(claims.patients).sums(gaps))
    coverage, risk = risk_coverage(claims.probability, claims.truth)
    steps = np.linspace(0, len(risk) - 1, min(len(risk), 101)).round().astype(int)
    return {
        "cases": len(claims.truth),
        "ece": with_interval(point, without, RATE),
        "brier": float(np.mean((claims.probability - claims.truth) ** 2)),
        "bins": _bins(claims),
        "risk_coverage": [[float(coverage[i]), float(risk[i])] for i in steps],
        "area_under_risk_coverage": float(risk.mean()),
    }


def expected_calibration_error(
    probability: Float64[np.ndarray, "cases"], truth: Bool[np.ndarray, "cases"]
) -> float:
    """Mean over cases of |mean probability − frequency| of their bin."""
    return float(_error_of(_gaps(probability, truth).sum(axis=0, keepdims=True))[0])


def _gaps(
    probability: Float64[np.ndarray, "cases"], truth: Bool[np.ndarray, "cases"]
) -> Float64[np.ndarray, "cases columns"]:
    """Probability less truth in the column of its bin, and 1 in the last: the error is of sums."""
    gaps = np.zeros((len(probability), NUM_BINS + 1))
    gaps[np.arange(len(gaps)), _bin_of(probability)] = probability - truth
    gaps[:, NUM_BINS] = 1
    return gaps


def _error_of(totals: Float64[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "rows"]:
    cases = totals[:, NUM_BINS]
    error = np.abs(totals[:, :NUM_BINS]).sum(axis=1)
    errors: Float64[np.ndarray, "rows"] = np.full(len(cases), np.nan)
    np.divide(error, cases, out=errors, where=cases > 0)
    return errors


def risk_coverage(
    probability: Float64[np.ndarray, "cases"], truth: Bool[np.ndarray, "cases"]
) -> tuple[Float64[np.ndarray, "cases"], Float64[np.ndarray, "cases"]]:
    """Share of cases decided, surest first, and the share of them decided wrongly.

    A case is decided as true from 0.5 up (Geifman & El-Yaniv, NeurIPS 2017).
    """
    order = np.argsort(-np.abs(probability - 0.5), kind="stable")
    wrong = ((probability >= 0.5) != truth)[order]
    counts = np.arange(1, len(wrong) + 1)
    return counts / len(wrong), np.cumsum(wrong) / counts


def _bins(claims: Claims) -> list[dict[str, float | int]]:
    bins = _bin_of(claims.probability)
    return [
        {
            "mean_probability": float(claims.probability[bins == number].mean()),
            "frequency": float(claims.truth[bins == number].mean()),
            "cases": int((bins == number).sum()),
        }
        for number in range(NUM_BINS)
        if (bins == number).any()
    ]


def _bin_of(probability: Float64[np.ndarray, "cases"]) -> Int64[np.ndarray, "cases"]:
    return np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)


def draw_reliability(parts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws reliability diagrams and risk–coverage curves: title → what `reliability` gives."""
    from ctscribe.base.figures import new_figure, write_figure

    figure, (left, right) = new_figure(9.0, 4.2, num_across=2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for title, part in parts.items():
        bins: Sequence[Mapping[str, float | int]] = part["bins"]
        label = f"{title}, ECE {part['ece']['value']:.3f}"
        stated, true = ([each[key] for each in bins] for key in ("mean_probability", "frequency"))
        sizes = [4 + 60 * each["cases"] / part["cases"] for each in bins]
        left.scatter(stated, true, s=sizes, label=label)
        right.plot(*zip(*part["risk_coverage"], strict=True), label=title)
    left.set(xlabel="stated probability", ylabel="how often it was so", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="share decided, surest first", ylabel="share of them wrong", ylim=(0, None))
    for axes in (left, right):
        axes.legend(frameon=False)
    write_figure(path, figure)
