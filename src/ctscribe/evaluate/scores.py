"""Every score of a set of predictions, with its interval, beside what blindness scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from ctscribe import RESEARCH_USE
from ctscribe.config import EvaluateConfig, PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.evaluate.agreement import AGREEMENT, agreement_scores, agreement_statistics
from ctscribe.evaluate.baselines import RULES, Report, choose_reports
from ctscribe.evaluate.clinical import (
    CLINICAL_METRICS,
    clinical_scores,
    clinical_signature,
    clinical_statistics,
    finding_counts,
    finding_scores,
)
from ctscribe.evaluate.intervals import (
    draw_patients,
    patient_index,
    sum_by_patient,
    with_interval,
)
from ctscribe.evaluate.language import (
    LANGUAGE_METRICS,
    NUM_LANGUAGE_COLUMNS,
    Profile,
    language_scores,
    language_signature,
    language_statistics,
)
from ctscribe.evaluate.predictions import read_predictions
from ctscribe.evaluate.scans import (
    Answers,
    as_reports,
    match_predictions,
    one_row_per_scan,
    read_labels,
)
from ctscribe.evaluate.strata import NODULE, strata_of
from ctscribe.evaluate.template import template_statistics
from ctscribe.reports.findings import FINDINGS
from ctscribe.rows import PredictionRow, StudyRow, read_rows

PROFILE: Profile = "ctrate-raw"
"""How text is normalised unless asked otherwise."""

Statistics = Float64[np.ndarray, "rows 89"]
"""`language_statistics` and `clinical_statistics` side by side."""


def evaluate_predictions(
    predictions_path: Path,
    prepared_dir: Path,
    split: Literal["train", "validation", "test"],
    pairs: PairsConfig,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Reads predictions and studies, and scores the former on ``split``; see `evaluate`."""
    from ctscribe.pairs.splits import studies_of

    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    references = studies_of(studies, split, pairs.validation_fraction)
    training = studies_of(studies, "train", pairs.validation_fraction)
    return evaluate(read_predictions(predictions_path, references), references, training, config)


def evaluate(
    predictions: Sequence[PredictionRow],
    references: Sequence[StudyRow],
    training: Sequence[StudyRow],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Scores predictions once per scan, with patient-bootstrap intervals and blind baselines.

    Args:
        predictions: At most one report per scan; a missing one counts as empty text without
            findings and is listed.
        references: The studies to be scored; reconstructions of one scan count once.
        training: The studies the baselines choose their reports from.
        config: Number of draws and their seed.

    Returns:
        A JSON-able dictionary: ``n``, ``model`` and ``baselines`` (metric → value, low, high,
        signature), ``baseline_rules``, ``per_finding``, ``agreement``, ``strata``, ``missing``,
        ``template``, ``use``. A score that is undefined for these references is None.

    Raises:
        CtscribeError: ``E_EVALUATE`` without references or without training reports of other
            patients; ``E_SCAN`` and ``E_PREDICTION`` for rows that contradict each other.
    """
    studies = one_row_per_scan(references)
    truth, known = as_reports(studies), as_reports(one_row_per_scan(training))
    _require_other_patients(truth, known)
    answers, missing = match_predictions(predictions, truth)
    patients = patient_index([report.patient_id for report in truth])
    draws = draw_patients(int(patients.max()) + 1, config.resamples, config.seed)
    statistics = scan_statistics(answers, truth)
    return {
        "n": {
            "scans": len(truth),
            "patients": len(draws[0]),
            "predicted": len(truth) - len(missing),
            "training_scans": len(known),
            "resamples": config.resamples,
            "seed": config.seed,
            "labels_read_from_text": sum(study.labels is None for study in studies),
        },
        "model": score_table(statistics, patients, draws),
        "baselines": {
            name: score_table(_chosen_statistics(chosen, truth), patients, draws)
            for name, chosen in choose_reports(known, truth, config.seed).items()
        },
        "baseline_rules": RULES,
        "per_finding": _per_finding(statistics, patients, draws),
        "agreement": _agreement(answers, truth, patients, draws),
        "strata": _strata(statistics, studies, truth, patients, draws),
        "missing": missing,
        "template": {
            "references": _template([report.text for report in truth], truth, config.seed),
            "predictions": _template(answers.texts, truth, config.seed),
        },
        "use": RESEARCH_USE,
    }


def scan_statistics(
    answers: Answers, truth: Sequence[Report], profile: Profile = PROFILE
) -> Statistics:
    """Sufficient statistics of every scan, for all metrics at once."""
    return np.hstack(
        [
            language_statistics(
                predictions=answers.texts,
                references=[report.text for report in truth],
                profile=profile,
            ),
            clinical_statistics(
                predictions=answers.labels, references=[report.labels for report in truth]
            ),
        ]
    )


def score_sums(totals: Statistics) -> dict[str, Float64[np.ndarray, "rows"]]:
    """All metrics from sums of `scan_statistics`; one value per row."""
    return {
        **language_scores(totals[:, :NUM_LANGUAGE_COLUMNS]),
        **clinical_scores(totals[:, NUM_LANGUAGE_COLUMNS:]),
    }


def score_table(
    statistics: Statistics,
    patients: Int64[np.ndarray, "scans"],
    draws: Float64[np.ndarray, "draws patients"],
    profile: Profile = PROFILE,
) -> dict[str, dict[str, Any]]:
    """Metric → value, its interval over the draws, and its signature."""
    point = score_sums(statistics.sum(axis=0, keepdims=True))
    drawn = score_sums(draws @ sum_by_patient(statistics, patients))
    names = (*LANGUAGE_METRICS, *CLINICAL_METRICS)
    return {
        name: with_interval(point[name], drawn[name])
        | {"signature": _signature(name, profile, len(statistics))}
        for name in names
    }


def _chosen_statistics(chosen: Sequence[Report], truth: Sequence[Report]) -> Statistics:
    # The baselines are read by the labeler too, exactly as a model's words are.
    texts = tuple(report.text for report in chosen)
    return scan_statistics(Answers(texts, tuple(read_labels(text) for text in texts)), truth)


def _per_finding(
    statistics: Statistics,
    patients: Int64[np.ndarray, "scans"],
    draws: Float64[np.ndarray, "draws patients"],
) -> list[dict[str, Any]]:
    clinical = statistics[:, NUM_LANGUAGE_COLUMNS:]
    total = clinical.sum(axis=0, keepdims=True)
    point, counts = finding_scores(total), finding_counts(total)
    drawn = finding_scores(draws @ sum_by_patient(clinical, patients))
    return [
        {"finding": finding}
        | {name: int(values[i]) for name, values in counts.items()}
        | {name: with_interval(point[name][:, i], drawn[name][:, i]) for name in point}
        for i, finding in enumerate(FINDINGS)
    ]


def _agreement(
    answers: Answers,
    truth: Sequence[Report],
    patients: Int64[np.ndarray, "scans"],
    draws: Float64[np.ndarray, "draws patients"],
) -> dict[str, dict[str, Any]]:
    statistics = agreement_statistics(
        predictions=answers.texts, references=[report.text for report in truth]
    )
    point = agreement_scores(statistics.sum(axis=0, keepdims=True))
    drawn = agreement_scores(draws @ sum_by_patient(statistics, patients))
    return {
        name: with_interval(point[name], drawn[name]) | {"signature": f"{name}|{definition}"}
        for name, definition in AGREEMENT.items()
    }


def _strata(
    statistics: Statistics,
    studies: Sequence[StudyRow],
    truth: Sequence[Report],
    patients: Int64[np.ndarray, "scans"],
    draws: Float64[np.ndarray, "draws patients"],
) -> list[dict[str, Any]]:
    nodule = FINDINGS.index(NODULE)
    has_nodule = [bool(report.labels[nodule]) for report in truth]
    groups = strata_of(studies, [report.text for report in truth], has_nodule)
    rows = []
    for grouping, strata in groups.items():
        for stratum, indices in strata.items():
            # Scans outside the stratum weigh nothing; the draws stay those of all patients.
            inside = np.zeros_like(statistics)
            inside[indices] = statistics[indices]
            clinical = inside[:, NUM_LANGUAGE_COLUMNS:]
            total = clinical.sum(axis=0, keepdims=True)
            drawn = draws @ sum_by_patient(clinical, patients)
            point_scores, drawn_scores = clinical_scores(total), clinical_scores(drawn)
            row: dict[str, Any] = {
                "grouping": grouping,
                "stratum": stratum,
                "scans": len(indices),
                "patients": len(set(patients[indices].tolist())),
            }
            for name in ("coverage", "precision"):
                row[name] = with_interval(point_scores[name], drawn_scores[name])
            recall, recalls = (finding_scores(sums)["coverage"] for sums in (total, drawn))
            row["nodule_coverage"] = with_interval(recall[:, nodule], recalls[:, nodule])
            rows.append(row)
    return rows


def _signature(name: str, profile: Profile, num_scans: int) -> str:
    if name in LANGUAGE_METRICS:
        return language_signature(name, profile, num_scans)
    return clinical_signature(name, num_scans)


def _template(texts: Sequence[str], truth: Sequence[Report], seed: int) -> dict[str, float | int]:
    return template_statistics(texts, [report.patient_id for report in truth], seed)


def _require_other_patients(truth: Sequence[Report], known: Sequence[Report]) -> None:
    if not truth:
        raise CtscribeError(
            "E_EVALUATE", "there must be studies to score, but the split has none; choose another"
        )
    patients = {report.patient_id for report in known}
    alone = len(patients) == 1 and patients <= {report.patient_id for report in truth}
    if not patients or alone:
        raise CtscribeError(
            "E_EVALUATE",
            f"the blind baselines need training reports of other patients, but {len(known)} are "
            "given; prepare the training split too",
        )
