"""The stage: calibrates a run on validation, measures on another split, keeps both with the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, write_json
from ctscribe.base.recipe import EvaluateConfig
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.features import FeatureStore
from ctscribe.measure.reliability import Claims, draw_reliability, reliability
from ctscribe.scan.frames import WINDOWS, air_frames, noise_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.write.calibration import (
    FILE,
    Calibration,
    fit_temperature,
    is_true,
    sentence_log_odds,
)
from ctscribe.write.evidence import log_probs
from ctscribe.write.generate import generate
from ctscribe.write.quality import why_not_assessable
from ctscribe.write.writer import ReportWriter


def abstention_rates(prepared: Prepared, studies: Sequence[StudyRow]) -> dict[str, Any]:
    """Share refused of good studies, and of noise, blank slices and shuffled pixels of their size.

    Args:
        prepared: Holds the studies.
        studies: Good ones.

    Returns:
        Per kind ``refused``, ``of`` and ``rate`` with its exact 95 % interval.
    """
    windows = WINDOWS[prepared.windows]
    refused = dict.fromkeys(("good studies", "noise", "blank", "shuffled pixels"), 0)
    for seed, study in enumerate(studies):
        frames = np.array(prepared.frames(study))
        slices, height, width, _ = frames.shape
        order = np.random.default_rng(seed).permutation(height * width)
        shuffled = frames.reshape(slices, -1, 3)[:, order].reshape(frames.shape)
        kinds = {
            "good studies": (frames, study.warnings),
            "noise": (noise_frames(seed, slices, (height, width), windows), ()),
            "blank": (air_frames(slices, (height, width), windows), ()),
            "shuffled pixels": (shuffled, ()),
        }
        for kind, (shown, warnings) in kinds.items():
            refused[kind] += why_not_assessable(shown, warnings) is not None
    return {kind: _rate(count, len(studies)) for kind, count in refused.items()}


def _rate(refused: int, total: int) -> dict[str, float | int]:
    interval = binomtest(refused, total).proportion_ci()
    return {
        "refused": refused,
        "of": total,
        "value": refused / total,
        "low": float(interval.low),
        "high": float(interval.high),
    }


@final
@dataclass(frozen=True)
class _Answers:
    """What the finding queries say of a split's scans, and the features they say it by."""

    store: FeatureStore
    studies: list[StudyRow]
    labels: np.ndarray
    logits: Float64[np.ndarray, "studies 18"]


def calibrate(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split = "test",
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Writes ``calibration.json`` and ``reliability.png``, and reports that are not there yet.

    Args:
        writer: A run with finding queries.
        prepared: Holds the scans.
        split: Where calibration is measured; it is fitted on validation.
        progress: Told (done, of 100).

    Returns:
        ``calibration``; per split ``findings_raw``, ``findings`` and ``sentences`` as
        `reliability` gives them; ``abstention`` as `abstention_rates` does.

    Raises:
        CtscribeError: ``E_NO_QUERIES``, ``E_NO_LABELS``, ``E_EMPTY_SPLIT``, ``E_PREPARED``.
    """
    written: dict[Split, list[PredictionRow]] = {"validation": [], split: []}
    for number, name in enumerate(written):
        target = writer.run_dir / f"predictions_{name}.jsonl"
        written[name] = generate(writer, prepared, name, target)
        progress(30 * (number + 1), 100)
    answers = {name: _answers(writer, prepared, name) for name in written}
    fitted = _fit_findings(answers["validation"], writer.weights_sha256)
    said = {name: _sentences(writer, rows, answers[name], fitted) for name, rows in written.items()}
    fitted = _fit_sentences(fitted, *said["validation"][:2])
    progress(90, 100)
    knobs = writer.recipe.evaluate
    report: dict[str, Any] = {
        "calibration": fitted.model_dump(mode="json"),
        **{name: _measure(answers[name], said[name], fitted, knobs) for name in written},
        "abstention": abstention_rates(prepared, answers[split].studies),
    }
    write_json(writer.run_dir / FILE, report)
    _draw(report[split], split, writer.run_dir / "reliability.png")
    progress(100, 100)
    return report


def _draw(measured: dict[str, Any], split: Split, path: Path) -> None:
    kinds = [kind for kind in ("findings", "sentences") if measured[kind]]
    draw_reliability({f"{kind}, {split}": measured[kind] for kind in kinds}, path)


def _answers(writer: ReportWriter, prepared: Prepared, split: Split) -> _Answers:
    studies = prepared.scans(split)
    store = writer.features(prepared, studies)
    logits = writer.finding_logits([store.visual(study) for study in studies])
    labels = []
    for study in studies:
        if study.labels is None:
            raise CtscribeError(
                "E_NO_LABELS",
                f"calibration needs the 18 labels of every study, but {study.volume_name} has none",
            )
        labels.append(study.labels)
    return _Answers(store, studies, np.array(labels), logits)


def _fit_findings(answers: _Answers, weights: str) -> Calibration:
    groups = np.tile(np.arange(len(FINDINGS)), len(answers.studies))
    truth = answers.labels.reshape(-1) > 0
    fitted = fit_temperature(answers.logits.reshape(-1, 1), groups, truth, len(FINDINGS))
    calibration = Calibration(
        weights_sha256=weights,
        finding_slope=fitted.slopes[0],
        finding_offsets=fitted.offsets,
        sentence_slopes=(1.0, 1.0),
        sentence_offset=0.0,
        threshold=0.5,
    )
    chosen = _best_threshold(calibration.findings(answers.logits).reshape(-1), truth)
    return calibration.model_copy(update={"threshold": chosen})


def _best_threshold(probability: np.ndarray, truth: np.ndarray) -> float:
    """With the best micro F1."""
    candidates = np.linspace(0.05, 0.95, 91)
    stated = probability[None] >= candidates[:, None]
    hits = (stated & truth).sum(1)
    f1 = 2 * hits / np.maximum(stated.sum(1) + truth.sum(), 1)
    return float(candidates[int(f1.argmax())])


def _sentences(
    writer: ReportWriter,
    rows: Sequence[PredictionRow],
    answers: _Answers,
    calibration: Calibration,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Raw log-odds, truth and patient of every written sentence that names a finding."""
    probabilities = calibration.findings(answers.logits)
    numbers = {study.scan_id: number for number, study in enumerate(answers.studies)}
    features, truth, patients = [], [], []
    for row in rows:
        number = numbers[row.scan_id]
        report = writer.read(row.findings, row.impression)
        if not report.sentences:
            continue
        on_scan = writer.put_behind(report, answers.store.visual(answers.studies[number]))
        scores = log_probs(writer.qwen, on_scan, [frozenset(range(on_scan.num_pairs))])[0, :-1]
        totals = (report.tokens.float() @ scores).tolist()
        for sentence, members, total in zip(report.sentences, report.tokens, totals, strict=True):
            odds = sentence_log_odds(
                sentence, total, int(members.sum()), probabilities[number].tolist()
            )
            if odds is not None:
                features.append(odds)
                truth.append(is_true(sentence, answers.labels[number].tolist()))
                patients.append(row.patient_id)
    return np.array(features).reshape(-1, 2), np.array(truth, bool), patients


def _fit_sentences(
    calibration: Calibration, features: np.ndarray, truth: np.ndarray
) -> Calibration:
    fitted = fit_temperature(features, np.zeros(len(features), int), truth, 1)
    return calibration.model_copy(
        update={
            "sentence_slopes": (fitted.slopes[0], fitted.slopes[1]),
            "sentence_offset": fitted.offsets[0],
        }
    )


def _measure(
    answers: _Answers,
    said: tuple[np.ndarray, np.ndarray, list[str]],
    calibration: Calibration,
    knobs: EvaluateConfig,
) -> dict[str, Any]:
    draws = (knobs.resamples, knobs.seed)
    patients = tuple(study.patient_id for study in answers.studies for _ in FINDINGS)
    truth = answers.labels.reshape(-1) > 0
    raw = 1 / (1 + np.exp(-answers.logits.reshape(-1)))
    calibrated = calibration.findings(answers.logits).reshape(-1)
    features, sentence_truth, sentence_patients = said
    sentences = None
    if len(features):
        probability = calibration.sentences(features)
        claims = Claims(probability, sentence_truth, tuple(sentence_patients))
        sentences = reliability(claims, *draws)
    return {
        "findings_raw": reliability(Claims(raw, truth, patients), *draws),
        "findings": reliability(Claims(calibrated, truth, patients), *draws),
        "sentences": sentences,
    }
