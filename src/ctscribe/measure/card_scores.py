"""From what was measured under every view to the card: numbers with intervals, and one score.

In: what was written under each view, the references, and where a model was asked their cross
entropy. Out: the numbers of ``card.json``.

Dependence is the share of the F1 still to be gained over another patient's volume that the own
volume gains: (F1 own − F1 other) / (1 − F1 other), from the 18 findings of the written reports.

- It is at most 1, reached by a model that is right on every scan, and exactly 0, in every draw,
  for one that writes the same whatever it is shown. Below 0 a wrong volume serves better.
- Somebody else's volume is the stand-in because nothing but its content tells it from the own.
  Noise and air can be known for what they are by a model that recites for every real scan, and
  one trained against noise raises its cross entropy there without looking at any lesion.
- It is about what is written, not about probabilities: cross entropy can be driven apart without
  a single sentence changing. F1 and not Coverage, because stating everything covers everything.
- Agreement by chance is taken off as in Cohen's kappa, so that neither the number of findings
  nor how common they are sets the scale. The divisor is near 0 only where all patients share
  the same findings, and then there is nothing to be measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.card_views import VIEWS
from ctscribe.measure.clinical import clinical_scores, clinical_statistics, finding_scores
from ctscribe.measure.intervals import CORPUS, NUMBER, RATE, Kind, Resampler, with_interval
from ctscribe.measure.language import (
    NUM_LANGUAGE_COLUMNS,
    Profile,
    language_scores,
    language_signature,
    language_statistics,
)
from ctscribe.measure.scans import Answers, ScanReport
from ctscribe.text.findings import FINDINGS

METRICS = {
    "cross_entropy": "of the true report, nats per token, mean over scans",
    "ce_gap": "cross entropy minus that given the scan itself",
    "perplexity": "exp(cross entropy)",
    "coverage": "TP/(TP+FN) over scans × 18 findings, written against true",
    "precision": "TP/(TP+FP), 0 when nothing is stated",
    "f1": "2TP/(2TP+FP+FN)",
    "bleu_4": "corpus BLEU-4 against the reports written from the scans themselves",
    "label_agreement": "F1 of the stated findings against those stated from the scans themselves",
    "dependence": "(F1 given the scan itself − F1) / (1 − F1)",
}
"""Metric → definition."""

AGAINST = "other_patient"
"""The view whose dependence is the card's score."""

FIT = ("cross_entropy", "ce_gap", "perplexity")
"""Metrics of the true report, which need the model itself."""

_COMPARED = ("ce_gap", "bleu_4", "label_agreement", "dependence")
"""Metrics that compare a view with the scan itself."""

_NUM = len(FINDINGS)
_CLINICAL_AT = 2 + _NUM
_LANGUAGE_AT = _CLINICAL_AT + 4 * _NUM + 4
_AGREEMENT_AT = _LANGUAGE_AT + NUM_LANGUAGE_COLUMNS

Totals = Float64[np.ndarray, "draws columns"]
ByView = Mapping[str, Float64[np.ndarray, "_ columns"]]
"""View → sums of the statistics, one row per draw; a point estimate is one row."""


def score_card(
    cross_entropy: Mapping[str, Float64[np.ndarray, "scans"]],
    answers: Mapping[str, Answers],
    truth: Sequence[ScanReport],
    config: EvaluateConfig,
    source_name: str = "rules",
) -> dict[str, Any]:
    """The card's numbers.

    Args:
        cross_entropy: View → of each scan's true report; empty where only reports are known.
        answers: View → what was written for the scans of ``truth``, in their order; ``real`` and
            ``other_patient`` at least.
        source_name: Who read the findings of what was written.

    Returns:
        ``n``, ``dependence``, ``views`` (view → metric → value, low, high), ``per_finding`` (with
        ``positives`` and the same per view) and ``definitions``. What is undefined is None; the
        real view has no metric that compares it with itself.
    """
    patient_ids = [report.patient_id for report in truth]
    resampler = Resampler.of(patient_ids)
    point, drawn = {}, {}
    for name, written in answers.items():
        ce = cross_entropy.get(name, np.zeros(len(truth)))
        rows = _statistics(ce, written, answers["real"], truth, config.profile)
        point[name], drawn[name] = resampler.sums(rows)
    known = [name for name in METRICS if cross_entropy or name not in FIT]
    told = {
        view: [name for name in known if view != "real" or name not in _COMPARED]
        for view in answers
    }
    views = {name: _view_scores(point, drawn, name, told[name]) for name in answers}
    return {
        "n": {
            "scans": len(truth),
            "patients": len(set(patient_ids)),
        },
        "dependence": views[AGAINST]["dependence"] | {"against": AGAINST},
        "views": views,
        "per_finding": _per_finding(point, drawn, truth, told),
        "definitions": {
            "views": {name: VIEWS[name] for name in answers},
            "metrics": {name: METRICS[name] for name in known},
            "bleu_4": language_signature("bleu_4", config.profile, len(truth)),
            "labels": source_name,
        },
    }


def require_dependence(card: Mapping[str, Any], minimum: float) -> None:
    """Lets a card pass only when the lower bound of its dependence reaches ``minimum``.

    Raises:
        CtscribeError: ``E_DEPENDENCE``, also when the score is undefined.
    """
    found = card["dependence"]
    if found["low"] is None or found["low"] < minimum:
        value, low, high = (found[key] for key in ("value", "low", "high"))
        told = "undefined" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        raise CtscribeError(
            "E_DEPENDENCE",
            f"the lower bound of the model's dependence on the image must reach {minimum:g}, but "
            f"its dependence is {told}",
        )


def _statistics(
    cross_entropy: Float64[np.ndarray, "scans"],
    written: Answers,
    real: Answers,
    truth: Sequence[ScanReport],
    profile: Profile,
) -> Float64[np.ndarray, "scans columns"]:
    true = np.array([report.labels for report in truth], dtype=np.float64)
    return np.hstack(
        [
            np.stack([cross_entropy, np.ones(len(truth))], axis=1),
            cross_entropy[:, None] * true,
            clinical_statistics(
                predictions=written.labels, references=[report.labels for report in truth]
            ),
            language_statistics(predictions=written.texts, references=real.texts, profile=profile),
            clinical_statistics(predictions=written.labels, references=real.labels),
        ]
    )


def _clinical(totals: Totals) -> Float64[np.ndarray, "draws 76"]:
    return totals[:, _CLINICAL_AT:_LANGUAGE_AT]


def _view_scores(
    point: ByView, drawn: ByView, name: str, told: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    values, draws = (_metrics(sums[name], sums["real"]) for sums in (point, drawn))
    return {
        metric: with_interval(values[metric], draws[metric], _kind_of(metric)) for metric in told
    }


def _kind_of(metric: str) -> Kind:
    if metric == "bleu_4":
        return CORPUS
    return NUMBER if metric in (*FIT, "dependence") else RATE


def _metrics(totals: Totals, real: Totals) -> dict[str, Float64[np.ndarray, "draws"]]:
    ce, real_ce = (sums[:, 0] / sums[:, 1] for sums in (totals, real))
    found, real_found = (clinical_scores(_clinical(sums)) for sums in (totals, real))
    still = 1 - found["f1"]
    return {
        "cross_entropy": ce,
        "ce_gap": ce - real_ce,
        "perplexity": np.exp(ce),
        **{metric: found[metric] for metric in ("coverage", "precision", "f1")},
        "bleu_4": language_scores(totals[:, _LANGUAGE_AT:_AGREEMENT_AT])["bleu_4"],
        "label_agreement": clinical_scores(totals[:, _AGREEMENT_AT:])["f1"],
        "dependence": np.divide(
            real_found["f1"] - found["f1"], still, out=np.full(len(ce), np.nan), where=still > 0
        ),
    }


def _per_finding(
    point: ByView, drawn: ByView, truth: Sequence[ScanReport], told: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    has_it: Int64[np.ndarray, "scans 18"] = np.array([report.labels for report in truth])
    positives = has_it.sum(axis=0)
    resampler = Resampler.of([report.patient_id for report in truth])
    patients = [resampler.count_where(of_finding) for of_finding in has_it.T > 0]
    views = {
        name: tuple(_finding_metrics(sums[name], sums["real"]) for sums in (point, drawn))
        for name in point
    }
    return [
        {
            "finding": finding,
            "positives": int(positives[i]),
            "views": {
                name: {
                    metric: with_interval(
                        *(values[metric][:, i], draws[metric][:, i], _kind_of(metric)),
                        patients[i],
                    )
                    for metric in values
                    if metric in told[name]
                }
                for name, (values, draws) in views.items()
            },
        }
        for i, finding in enumerate(FINDINGS)
    ]


def _finding_metrics(totals: Totals, real: Totals) -> dict[str, Float64[np.ndarray, "draws 18"]]:
    """Cross entropy of a finding is that of the reports that state it."""
    ce, real_ce = (_ce_by_finding(sums) for sums in (totals, real))
    return {
        "cross_entropy": ce,
        "ce_gap": ce - real_ce,
        **finding_scores(_clinical(totals)),
        "label_agreement": finding_scores(totals[:, _AGREEMENT_AT:])["f1"],
    }


def _ce_by_finding(totals: Totals) -> Float64[np.ndarray, "draws 18"]:
    counts = _clinical(totals)
    positives = counts[:, :_NUM] + counts[:, 2 * _NUM : 3 * _NUM]
    ce = np.full(positives.shape, np.nan)
    np.divide(totals[:, 2:_CLINICAL_AT], positives, out=ce, where=positives > 0)
    return ce
