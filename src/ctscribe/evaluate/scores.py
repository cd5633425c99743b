"""Every score of a set of predictions, with its interval, beside what blindness scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctscribe import RESEARCH_USE
from ctscribe.config import EvaluateConfig, PairsConfig
from ctscribe.errors import CtscribeError
from ctscribe.evaluate import label_sentences
from ctscribe.evaluate.baselines import BASELINE_RULES, choose_reports
from ctscribe.evaluate.breakdown import by_agreement, by_finding, by_stratum
from ctscribe.evaluate.cross_check import cross_check
from ctscribe.evaluate.intervals import Resampler
from ctscribe.evaluate.label_source import RULES, LabelSource
from ctscribe.evaluate.meteor import meteor
from ctscribe.evaluate.predictions import read_predictions
from ctscribe.evaluate.scans import (
    Answers,
    Report,
    Sections,
    as_reports,
    match_predictions,
    one_row_per_scan,
    read_answers,
)
from ctscribe.evaluate.statistics import scan_statistics, score_table
from ctscribe.evaluate.template import template_statistics
from ctscribe.pairs.splits import Split, studies_of
from ctscribe.rows import PredictionRow, StudyRow, read_rows
from ctscribe.types import Labels


def evaluate_predictions(
    predictions_path: Path,
    prepared_dir: Path,
    split: Split,
    pairs: PairsConfig,
    config: EvaluateConfig,
    source: LabelSource = RULES,
    label_head_path: Path | None = None,
) -> dict[str, Any]:
    """Reads predictions and studies, and scores the former on ``split``; see `evaluate`.

    Raises:
        CtscribeError: As `evaluate` and `label_sentences.read_label_head`.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    references, training = (
        studies_of(studies, name, pairs.validation_fraction) for name in (split, "train")
    )
    predictions = read_predictions(predictions_path, references)
    stated = None
    if label_head_path is not None:
        stated = label_sentences.read_label_head(label_head_path, references)
    return evaluate(predictions, references, training, config, source, stated)


def evaluate(
    predictions: Sequence[PredictionRow],
    references: Sequence[StudyRow],
    training: Sequence[StudyRow],
    config: EvaluateConfig,
    source: LabelSource = RULES,
    stated: Mapping[str, Labels] | None = None,
) -> dict[str, Any]:
    """Scores predictions once per scan, with patient-bootstrap intervals and blind baselines.

    Args:
        predictions: At most one report per scan; a missing one counts as empty text without
            findings and is listed.
        references: The studies to be scored; reconstructions of one scan count once.
        training: The studies the baselines choose their reports from.
        config: Text profile, number of draws and their seed, optional metrics.
        source: Reads the findings of what was written, and of references without labels.
        stated: Scan → what a label head found, for the baseline that needs no report writer.

    Returns:
        A JSON-able dictionary: ``n``, ``model`` and ``baselines`` (metric → value, low, high,
        signature), ``baseline_rules``, ``per_finding``, ``agreement``, ``strata``, ``missing``,
        ``template``, ``cross_check``, ``use``. A score that is undefined for these references
        is None.

    Raises:
        CtscribeError: ``E_EVALUATE`` without references or without training reports of other
            patients; ``E_SCAN`` and ``E_PREDICTION`` for rows that contradict each other;
            ``E_METEOR`` where METEOR is asked for and cannot run.
    """
    studies = one_row_per_scan(references)
    truth, known = (as_reports(rows, source) for rows in (studies, one_row_per_scan(training)))
    _require_other_patients(truth, known)
    answers, missing = match_predictions(predictions, truth, source)
    patient_ids = [report.patient_id for report in truth]
    resampler = Resampler.of(patient_ids, config.resamples, config.seed)
    statistics = scan_statistics(answers, truth, config.profile)
    written = _baselines(truth, known, config.seed, stated)
    systems = {"model": answers} | {
        name: read_answers(sections, source) for name, sections in written.items()
    }
    tables = {}
    for name, system in systems.items():
        rows = statistics if name == "model" else scan_statistics(system, truth, config.profile)
        tables[name] = score_table(rows, resampler, config.profile, source.name)
        if config.meteor:
            tables[name]["meteor"] = meteor(**_texts(system, truth), profile=config.profile)
    return {
        "n": {
            "scans": len(truth),
            "patients": len(set(patient_ids)),
            "predicted": len(truth) - len(missing),
            "training_scans": len(known),
            "resamples": config.resamples,
            "seed": config.seed,
            "labels_read_from_text": sum(study.labels is None for study in studies),
        },
        "model": tables.pop("model"),
        "baselines": tables,
        "baseline_rules": {
            name: rule
            for name, rule in (BASELINE_RULES | {"label_sentences": label_sentences.RULE}).items()
            if name in tables
        },
        "per_finding": by_finding(statistics, resampler),
        "agreement": by_agreement(answers, truth, resampler),
        "strata": by_stratum(statistics, studies, truth, resampler),
        "missing": missing,
        "template": {
            "references": template_statistics(
                [report.sections for report in truth], patient_ids, config.seed
            ),
            "predictions": template_statistics(answers.sections, patient_ids, config.seed),
        },
        "cross_check": cross_check(**_texts(answers, truth), profile=config.profile),
        "use": RESEARCH_USE,
    }


def _baselines(
    truth: Sequence[Report],
    known: Sequence[Report],
    seed: int,
    stated: Mapping[str, Labels] | None,
) -> dict[str, list[Sections]]:
    """What each baseline writes; it is read by the label source too, as a model's words are."""
    written = {
        name: [report.sections for report in chosen]
        for name, chosen in choose_reports(known, truth, seed).items()
    }
    if stated is not None:
        labels = [stated[report.scan_id] for report in truth]
        written["label_sentences"] = label_sentences.reports_from_labels(known, labels)
    return written


def _texts(answers: Answers, truth: Sequence[Report]) -> dict[str, Sequence[str]]:
    return {"predictions": answers.texts, "references": [report.text for report in truth]}


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
