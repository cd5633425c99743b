"""From what was measured under every view to the card: numbers with intervals, and one score.

In: what was written under each view, the references, and where a model was asked their cross
entropy. Out: the numbers of ``card.json``.

Dependence on a view is the share of the F1 still to be gained over it that the own volume gains:
(F1 own − F1 shown) / (1 − F1 shown), from the 18 findings of the written reports. The card's is
the least over all views without the patient, and over the patient on another's grid.

- It is at most 1, reached by a model that is right on every scan, and exactly 0, whoever is left
  out, for one that writes the same whatever it is shown. Where a wrong volume serves better it is
  as much below 0 as it would be above if the two changed places.
- No single view will do. Noise and air can be known for what they are by a model that recites for
  every real scan; another patient's volume comes with another grid, by which a report can be
  looked up; on the own grid it still has that patient's noise. Every view takes something else
  away, and who reads what is left in one of them loses nothing there.
- A list of these very files, known by any trace of their bytes, loses in every view. It is found
  out by the same patient on another's grid: who looks writes there what he writes of the scan
  itself, and so better than of any view without the patient.
- The bound of the least is the least of the bounds: that all are above 0 is shown at 2.5 % when
  each is (an intersection-union test), with nothing to correct for.
- It is about what is written, not about probabilities: cross entropy can be driven apart without
  a single sentence changing. F1 and not Coverage, because stating everything covers everything.
- Agreement by chance is taken off as in Cohen's kappa, so that neither the number of findings
  nor how common they are sets the scale.
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
"""Views without which there is no card."""

FEWEST_PATIENTS = 40
"""Patients with a finding that a verdict takes; of fewer the bounds hold too seldom."""

Verdict = Literal["too few", "undefined", "open", "looks so far", "looks"]
"""``open``: not to be told from a model that does not look. ``looks so far``: above 0 on all views
that were shown, but some of `GATED` were not."""

FIT = ("cross_entropy", "ce_gap", "perplexity")
"""Metrics of the true report, which need the model itself."""

_COMPARED = ("ce_gap", "bleu_4", "label_agreement", "dependence")
"""Metrics that compare a view with the scan itself."""

Totals = Float64[np.ndarray, "_ _"]
Parts = Mapping[str, Totals]
"""Sums of the statistics about ``fit``, ``findings``, ``words`` and ``agreement``: one
row of all patients, or a row without each of them."""


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
    """Of each part of the statistics the sums over all scans, and without each patient."""
    both = {part: jackknife.sums(each) for part, each in rows.items()}
    point, without = ({part: sums[i] for part, sums in both.items()} for i in (0, 1))
    return point, without


def _least(views: Mapping[str, dict[str, dict[str, float | None]]]) -> dict[str, Any]:
    """Dependence on the view whose lower bound is least, and on which; undefined is less."""
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
    """Lets a card pass only when it says that the model looks, and how much is enough.

    That is: all views were shown, on enough patients, and the lower bound of dependence is above
    0 and reaches ``minimum``.

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
    """View → how much better than from it the findings are that are read in the scan itself.

    Of the scan on another's grid: how much better they are than from any view without the patient.

    Args:
        f1: View → F1 of what was written from it against the references.
    """
    best_blind = np.max([f1[view] for view in REMOVED if view in f1], axis=0)
    return {
        view: _gain(shown, best_blind) if view == KEPT else _gain(f1["real"], shown)
        for view, shown in f1.items()
    }


def _gain(
    own: Float64[np.ndarray, "rows"], other: Float64[np.ndarray, "rows"]
) -> Float64[np.ndarray, "rows"]:
    """The difference as a share of what the lesser leaves to be gained; 0 where both are equal."""
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
    """Cross entropy of a finding is that of the reports that state it."""
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
