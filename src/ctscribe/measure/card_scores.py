"""The scores of the image-dependence card: numbers with intervals for each view, and a verdict.

In: the reports written under each view, the references and, where the model is at hand, its cross
entropy of the references. Out: the numbers of ``card.json``.

Dependence on a view compares the F1 of the 18 findings in the written reports: (F1 given the scan −
F1 given the view) / (1 − F1 given the view). The card's dependence is the smallest over all views
without the patient, and over the view with the patient on another scan's grid.

- It is at most 1, for a model that is right on every scan. It is exactly 0 for one that writes the
  same whatever it is shown. Where the view serves better than the scan, it is the negative of what
  it would be if the two were swapped.
- One view is not enough. A model that recites for every real scan may still recognise noise and
  air. Another patient's volume has another grid, by which a report can be looked up; put on the own
  grid it still has that patient's image noise. Each view removes something else, and a model that
  relies on what is left in a view loses nothing there.
- A lookup table of these very files, recognised by any trace of their bytes, loses in every view
  without the patient. It is exposed by the patient on another scan's grid: there a model that looks
  writes what it writes of the scan itself, so better reports than for any view without the patient.
- The lower bound of the smallest dependence is the smallest lower bound: all are above 0 at the
  level of 2.5 % when each one is (intersection-union test), and no correction is needed.
- It is based on reports, not on probabilities: cross entropies can differ without a single sentence
  changing. It uses F1 and not Coverage, because stating everything covers everything.
- Agreement by chance is taken off as in Cohen's kappa, so the scale does not depend on the number
  or frequency of findings.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.measure.card_views import GATED, KEPT, REMOVED, VIEWS
from ctscribe.measure.clinical import clinical_scores, clinical_statistics, finding_scores
from ctscribe.measure.intervals import CORPUS, NUMBER, RATE, Jackknife, Kind, with_interval
from ctscribe.measure.language import (
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
    "dependence": "(F1 given the scan itself − F1) / (1 − the lesser of both); of the scan on "
    "another's grid, its F1 against the best of the views without the patient",
}
"""Metric → definition."""

NEEDED = ("real", "other_patient")
"""Views that every card needs."""

FEWEST_PATIENTS = 40
"""Patients with a finding that a verdict needs; with fewer, intervals cover too seldom."""

Verdict = Literal["too few", "undefined", "open", "looks so far", "looks"]
"""``open``: not distinguishable from a model that does not look. ``looks so far``: above 0 on all
views that were shown, but some of `GATED` were not."""

FIT = ("cross_entropy", "ce_gap", "perplexity")
"""Metrics of the true report's probability, which need the model itself."""

_COMPARED = ("ce_gap", "bleu_4", "label_agreement", "dependence")
"""Metrics that compare a view with the scan itself, and so do not exist for ``real``."""

Totals = Float64[np.ndarray, "_ _"]
Parts = Mapping[str, Totals]
"""Sums of the statistics ``fit``, ``findings``, ``words`` and ``agreement``: one row for all
patients, or one row for each patient left out."""


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
        ``n``, ``dependence`` with the view it is ``against``, ``verdict``, the needed views that
        were ``not_shown``, ``views`` (view → metric → value, low, high), ``per_finding`` (with
        ``positives`` and the same per view) and ``definitions``. What is undefined is None; the
        real view has no metric that compares it with itself.
    """
    patient_ids = [report.patient_id for report in truth]
    jackknife = Jackknife.of(patient_ids)
    point, without = {}, {}
    for name, written in answers.items():
        ce = cross_entropy.get(name, np.zeros(len(truth)))
        rows = _statistics(ce, written, answers["real"], truth, config.profile)
        point[name], without[name] = _sums(jackknife, rows)
    known = [name for name in METRICS if cross_entropy or name not in FIT]
    alone = [name for name in known if name not in _COMPARED]
    told = {view: alone if view == "real" else known for view in answers}
    views = _view_scores(point, without, told)
    with_findings = len({report.patient_id for report in truth if any(report.labels)})
    counts = {"scans": len(truth), "patients": len(set(patient_ids))}
    least, not_shown = _least(views), [view for view in GATED if view not in views]
    return {
        "n": {**counts, "patients_with_findings": with_findings},
        "dependence": least,
        "verdict": _verdict(least["low"], with_findings, not_shown),
        "not_shown": not_shown,
        "views": views,
        "per_finding": _per_finding(point, without, truth, told),
        "definitions": {
            "views": {name: VIEWS[name] for name in answers},
            "metrics": {name: METRICS[name] for name in known},
            "bleu_4": language_signature("bleu_4", config.profile, len(truth)),
            "labels": source_name,
        },
    }


def _sums(
    jackknife: Jackknife, rows: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sums of each part of the statistics over all scans, and with each patient left out."""
    both = {part: jackknife.sums(each) for part, each in rows.items()}
    point, without = ({part: sums[i] for part, sums in both.items()} for i in (0, 1))
    return point, without


def _least(views: Mapping[str, dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """Dependence on the view with the smallest lower bound (undefined as −∞), and its name."""
    found = {view: views[view]["dependence"] for view in GATED if view in views}
    bounds = {view: each["low"] for view, each in found.items()}
    low = {view: -np.inf if bound is None else bound for view, bound in bounds.items()}
    against = min(low, key=low.__getitem__)
    return {**found[against], "against": against}


def _verdict(low: float | None, num_patients: int, not_shown: Sequence[str]) -> Verdict:
    if num_patients < FEWEST_PATIENTS:
        return "too few"
    if low is None:
        return "undefined"
    if low <= 0:  # a bound of exactly 0 does not lie above it
        return "open"
    return "looks so far" if not_shown else "looks"


def require_dependence(card: Mapping[str, Any], minimum: float) -> None:
    """Raises unless the card shows that the model looks at the scan.

    That is: all views were shown, to enough patients, and the lower bound of dependence is above 0
    and at least ``minimum``.

    Raises:
        CtscribeError: ``E_DEPENDENCE``.
    """
    found, verdict, n = card["dependence"], card["verdict"], card["n"]
    if verdict == "too few":
        fault = (
            f"dependence must be measured on {FEWEST_PATIENTS} patients with a finding or more, "
            f"but was on {n['patients_with_findings']}"
        )
    elif card["not_shown"]:
        fault = (
            f"dependence must be measured under all views, but {' and '.join(card['not_shown'])} "
            "were not shown"
        )
    elif verdict != "looks" or found["low"] < minimum:
        value, low, high = (found[key] for key in ("value", "low", "high"))
        told = "undefined" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        fault = (
            f"the lower bound of the model's dependence on the image must be above 0 and reach "
            f"{minimum:g}, but its dependence on the view {found['against']} is {told}"
        )
    else:
        return
    raise CtscribeError("E_DEPENDENCE", fault)


def _statistics(
    cross_entropy: Float64[np.ndarray, "scans"],
    written: Answers,
    real: Answers,
    truth: Sequence[ScanReport],
    profile: Profile,
) -> dict[str, Float64[np.ndarray, "scans _"]]:
    true = np.array([report.labels for report in truth], dtype=np.float64)
    ce = cross_entropy[:, None]
    return {
        "fit": np.hstack([ce, np.ones_like(ce), ce * true]),
        "findings": clinical_statistics(
            predictions=written.labels, references=[report.labels for report in truth]
        ),
        "words": language_statistics(
            predictions=written.compared(profile),
            references=real.compared(profile),
            profile=profile,
        ),
        "agreement": clinical_statistics(predictions=written.labels, references=real.labels),
    }


def _view_scores(
    point: Mapping[str, Parts], without: Mapping[str, Parts], told: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    values, left = (_metrics(sums) for sums in (point, without))
    return {
        view: {
            metric: with_interval(values[view][metric], left[view][metric], _kind_of(metric))
            for metric in metrics
        }
        for view, metrics in told.items()
    }


def _kind_of(metric: str) -> Kind:
    if metric == "bleu_4":
        return CORPUS
    return NUMBER if metric in (*FIT, "dependence") else RATE


def _metrics(sums: Mapping[str, Parts]) -> dict[str, dict[str, Float64[np.ndarray, "rows"]]]:
    """View → metric → one value per row."""
    ce = {view: parts["fit"][:, 0] / parts["fit"][:, 1] for view, parts in sums.items()}
    found = {view: clinical_scores(parts["findings"]) for view, parts in sums.items()}
    gained = dependence({view: scores["f1"] for view, scores in found.items()})
    return {
        view: {
            "cross_entropy": ce[view],
            "ce_gap": ce[view] - ce["real"],
            "perplexity": np.exp(ce[view]),
            **{metric: found[view][metric] for metric in ("coverage", "precision", "f1")},
            "bleu_4": language_scores(parts["words"])["bleu_4"],
            "label_agreement": clinical_scores(parts["agreement"])["f1"],
            "dependence": gained[view],
        }
        for view, parts in sums.items()
    }


def dependence(
    f1: Mapping[str, Float64[np.ndarray, "rows"]],
) -> dict[str, Float64[np.ndarray, "rows"]]:
    """View → dependence on it: the gain in F1 of the scan itself over the view.

    For the scan on another's grid (`KEPT`) it is the gain of that view over the best of the views
    without the patient.

    Args:
        f1: View → F1 of its reports against the references.
    """
    best_blind = np.max([f1[view] for view in REMOVED if view in f1], axis=0)
    return {
        view: _gain(shown, best_blind) if view == KEPT else _gain(f1["real"], shown)
        for view, shown in f1.items()
    }


def _gain(
    own: Float64[np.ndarray, "rows"], other: Float64[np.ndarray, "rows"]
) -> Float64[np.ndarray, "rows"]:
    """(own − other) / (1 − the smaller of both); 0 where both are equal."""
    gain = np.zeros_like(own)
    np.divide(own - other, 1 - np.minimum(own, other), out=gain, where=own != other)
    return gain


def _per_finding(
    point: Mapping[str, Parts],
    without: Mapping[str, Parts],
    truth: Sequence[ScanReport],
    told: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    has_it: Int64[np.ndarray, "scans 18"] = np.array([report.labels for report in truth])
    positives = has_it.sum(axis=0)
    jackknife = Jackknife.of([report.patient_id for report in truth])
    patients = [jackknife.count_where(of_finding) for of_finding in has_it.T > 0]
    views = {
        name: tuple(_finding_metrics(sums[name], sums["real"]) for sums in (point, without))
        for name in point
    }
    return [
        {
            "finding": finding,
            "positives": int(positives[i]),
            "views": {
                name: {
                    metric: with_interval(
                        *(values[metric][:, i], left[metric][:, i], _kind_of(metric)),
                        patients[i],
                    )
                    for metric in values
                    if metric in told[name]
                }
                for name, (values, left) in views.items()
            },
        }
        for i, finding in enumerate(FINDINGS)
    ]


def _finding_metrics(sums: Parts, real: Parts) -> dict[str, Float64[np.ndarray, "rows 18"]]:
    """Metrics per finding; its cross entropy is the mean over the reports that state it."""
    ce, real_ce = (_ce_by_finding(each) for each in (sums, real))
    return {
        "cross_entropy": ce,
        "ce_gap": ce - real_ce,
        **finding_scores(sums["findings"]),
        "label_agreement": finding_scores(sums["agreement"])["f1"],
    }


def _ce_by_finding(sums: Parts) -> Float64[np.ndarray, "rows 18"]:
    true_positives, _, false_negatives = np.split(
        sums["findings"][:, : 3 * len(FINDINGS)], 3, axis=1
    )
    positives = true_positives + false_negatives
    ce = np.full(positives.shape, np.nan)
    np.divide(sums["fit"][:, 2:], positives, out=ce, where=positives > 0)
    return ce
