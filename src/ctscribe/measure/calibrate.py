"""The stage: calibrates a run on validation, measures on another split, keeps both with the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Float64
from scipy.stats import binomtest
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, write_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.runs import weights_sha256
from ctscribe.base.tables import format_markdown
from ctscribe.data.prepared import read_frames
from ctscribe.data.splits import Split
from ctscribe.learn.model.features import FeatureStore, store_features
from ctscribe.measure.reliability import Claims, draw_reliability, reliability
from ctscribe.scan.frames import WINDOWS, air_frames, noise_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.write.calibration import (
    FILE,
    Calibration,
    finding_logits,
    fit_temperature,
    is_true,
    sentence_log_odds,
)
from ctscribe.write.evidence import log_probs, show
from ctscribe.write.generate import generate, load_for_inference, scans_of
from ctscribe.write.quality import why_not_assessable
from ctscribe.write.sentences import read_report


def abstention_rates(
    prepared_dir: Path, studies: Sequence[StudyRow], windows: Literal["single", "three"]
) -> dict[str, Any]:
    """Share refused of good studies, and of noise, blank slices and shuffled pixels of their size.

    Args:
        prepared_dir: What `prepare` wrote.
        studies: Good ones.
        windows: In which their frames were made.

    Returns:
        Per kind ``refused``, ``of`` and ``rate`` with its exact 95 % interval.
    """
    refused = dict.fromkeys(("good studies", "noise", "blank", "shuffled pixels"), 0)
    for seed, study in enumerate(studies):
        frames = np.array(read_frames(prepared_dir, study.volume_name))
        slices, height, width, _ = frames.shape
        order = np.random.default_rng(seed).permutation(height * width)
        shuffled = frames.reshape(slices, -1, 3)[:, order].reshape(frames.shape)
        kinds = {
            "good studies": (frames, study.warnings),
            "noise": (noise_frames(seed, slices, (height, width), WINDOWS[windows]), ()),
            "blank": (air_frames(slices, (height, width), WINDOWS[windows]), ()),
            "shuffled pixels": (shuffled, ()),
        }
        for kind, (shown, warnings) in kinds.items():
            refused[kind] += why_not_assessable(shown, warnings) is not None
    return {kind: _rate(count, len(studies)) for kind, count in refused.items()}


def abstention_lines(rates: Mapping[str, Mapping[str, float | int]]) -> str:
    """The rates as Markdown."""
    rows = [
        (
            kind,
            f"{rate['refused']} of {rate['of']}",
            f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]",
        )
        for kind, rate in rates.items()
    ]
    return "\n".join(format_markdown(("shown", "refused", "rate"), rows))


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
class _Asked:
    """What a model said about a split."""

    studies: list[StudyRow]
    labels: np.ndarray
    logits: Float64[np.ndarray, "studies 18"]


def calibrate(
    run_dir: Path,
    prepared_dir: Path,
    recipe: Recipe,
    split: Split = "test",
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Writes ``calibration.json`` and ``reliability.png``, and reports that are not there yet.

    Args:
        run_dir: Training run with finding queries.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        split: Where calibration is measured; it is fitted on validation.
        progress: Told (done, of 100).

    Returns:
        ``calibration``; per split ``findings_raw``, ``findings`` and ``sentences`` as
        `reliability` gives them; ``abstention`` as `abstention_rates` does.

    Raises:
        CtscribeError: ``E_NO_QUERIES``, ``E_NO_LABELS``, ``E_EMPTY_SPLIT``, ``E_WEIGHTS``.
    """
    written: dict[Split, list[PredictionRow]] = {"validation": [], split: []}
    for number, name in enumerate(written):
        target = run_dir / f"predictions_{name}.jsonl"
        written[name] = generate(run_dir, prepared_dir, recipe, name, target)
        progress(30 * (number + 1), 100)
    qwen, tokenizer = load_for_inference(run_dir, recipe)
    asked, stores = {}, {}
    for name in written:
        stores[name], asked[name] = _ask(qwen, prepared_dir, name, recipe)
    fitted = _fit_findings(asked["validation"], weights_sha256(run_dir / "best"))
    said = {
        name: _sentences(qwen, tokenizer, stores[name], rows, asked[name], fitted, recipe)
        for name, rows in written.items()
    }
    fitted = _fit_sentences(fitted, *said["validation"][:2])
    progress(90, 100)
    report: dict[str, Any] = {
        "calibration": fitted.model_dump(mode="json"),
        **{name: _measure(asked[name], said[name], fitted, recipe) for name in written},
        "abstention": abstention_rates(prepared_dir, asked[split].studies, recipe.slices.windows),
    }
    write_json(run_dir / FILE, report)
    _draw(report[split], split, run_dir / "reliability.png")
    progress(100, 100)
    return report


def _draw(measured: dict[str, Any], split: Split, path: Path) -> None:
    kinds = [kind for kind in ("findings", "sentences") if measured[kind]]
    draw_reliability({f"{kind}, {split}": measured[kind] for kind in kinds}, path)


def _ask(
    qwen: Qwen2_5_VLForConditionalGeneration, prepared_dir: Path, split: Split, recipe: Recipe
) -> tuple[FeatureStore, _Asked]:
    """What the queries say of a split's scans, and the features they say it by."""
    studies = scans_of(prepared_dir, split, recipe.pairs.validation_fraction)
    store = store_features(qwen, prepared_dir, studies, windows=recipe.slices.windows)
    logits = finding_logits(qwen, store, studies)
    labels = []
    for study in studies:
        if study.labels is None:
            raise CtscribeError(
                "E_NO_LABELS",
                f"calibration needs the 18 labels of every study, but {study.volume_name} has none",
            )
        labels.append(study.labels)
    return store, _Asked(studies, np.array(labels), logits)


def _fit_findings(asked: _Asked, weights: str) -> Calibration:
    groups = np.tile(np.arange(len(FINDINGS)), len(asked.studies))
    truth = asked.labels.reshape(-1) > 0
    fitted = fit_temperature(asked.logits.reshape(-1, 1), groups, truth, len(FINDINGS))
    calibration = Calibration(
        weights_sha256=weights,
        finding_slope=fitted.slopes[0],
        finding_offsets=fitted.offsets,
        sentence_slopes=(1.0, 1.0),
        sentence_offset=0.0,
        threshold=0.5,
    )
    chosen = _best_threshold(calibration.findings(asked.logits).reshape(-1), truth)
    return calibration.model_copy(update={"threshold": chosen})


def _best_threshold(probability: np.ndarray, truth: np.ndarray) -> float:
    """With the best micro F1."""
    candidates = np.linspace(0.05, 0.95, 91)
    stated = probability[None] >= candidates[:, None]
    hits = (stated & truth).sum(1)
    f1 = 2 * hits / np.maximum(stated.sum(1) + truth.sum(), 1)
    return float(candidates[int(f1.argmax())])


def _sentences(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    store: FeatureStore,
    rows: Sequence[PredictionRow],
    asked: _Asked,
    calibration: Calibration,
    recipe: Recipe,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Raw log-odds, truth and patient of every written sentence that names a finding."""
    probabilities = calibration.findings(asked.logits)
    numbers = {study.scan_id: number for number, study in enumerate(asked.studies)}
    features, truth, patients = [], [], []
    for row in rows:
        number = numbers[row.scan_id]
        report = read_report(row.findings, row.impression, tokenizer)
        if not report.sentences:
            continue
        visual = store.visual(asked.studies[number])
        shown = show(qwen, tokenizer, report.answer, visual, recipe.model.positions)
        scores = log_probs(qwen, shown, [frozenset(range(shown.num_pairs))])[0, :-1]
        totals = (report.tokens.float() @ scores).tolist()
        for sentence, members, total in zip(report.sentences, report.tokens, totals, strict=True):
            odds = sentence_log_odds(
                sentence, total, int(members.sum()), probabilities[number].tolist()
            )
            if odds is not None:
                features.append(odds)
                truth.append(is_true(sentence, asked.labels[number].tolist()))
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
    asked: _Asked,
    said: tuple[np.ndarray, np.ndarray, list[str]],
    calibration: Calibration,
    recipe: Recipe,
) -> dict[str, Any]:
    draws = (recipe.evaluate.resamples, recipe.evaluate.seed)
    patients = tuple(study.patient_id for study in asked.studies for _ in FINDINGS)
    truth = asked.labels.reshape(-1) > 0
    raw = 1 / (1 + np.exp(-asked.logits.reshape(-1)))
    calibrated = calibration.findings(asked.logits).reshape(-1)
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
