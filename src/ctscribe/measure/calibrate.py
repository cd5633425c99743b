"""The calibration stage: fits probabilities on validation, measures them on another split.

In: a run with finding queries, and prepared scans. Out, in the run's folder: ``calibration.json``,
``reliability.png``, and the reports of both splits. Where reports with other settings are there
already, new ones are written under ``calibrate/``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import binomtest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, sha256_of_json, write_json
from ctscribe.base.locks import one_writer
from ctscribe.base.rows import PredictionRow, StudyRow
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.feature_store import FeatureStore
from ctscribe.learn.model.temperature import choose_threshold, fit_table, fit_temperature
from ctscribe.measure.reliability import Claims, draw_reliability, reliability
from ctscribe.scan.frames import WINDOWS, air_frames, noise_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import known_labels
from ctscribe.write.calibration import (
    FILE,
    Calibration,
    is_true,
    sentence_log_odds,
)
from ctscribe.write.draft import why_not_assessable
from ctscribe.write.evidence import log_probs
from ctscribe.write.generate import generate
from ctscribe.write.writer import ReportWriter

ONE_IN = 80
"""Remark bounds are set so that one true report in 80 gets a remark for stating too little, and one
in 80 for stating too much."""


def calibrate(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split = "test",
    *,
    point: str | None = None,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Fits the calibration on validation, measures it on ``split``, and writes both.

    ``point`` sets the thresholds of template and cues; see `choose_threshold`. ``progress`` is
    called with (done, 100).

    Returns:
        ``calibration``; per split ``findings_raw``, ``findings`` and ``sentences`` as `reliability`
        gives them (``sentences`` is None where none names a finding, or they could not be fitted,
        as with one validation patient); ``abstention`` from `abstention_rates`; and ``patients``.

    Raises:
        CtscribeError: ``E_NO_QUERIES``, ``E_NO_REPORT``, ``E_EMPTY_SPLIT``, ``E_PREPARED``,
            ``E_OPERATING_POINT``, ``E_BUSY``.
    """
    names: list[Split] = ["validation", *({split} - {"validation"})]
    with one_writer(writer.run_dir):
        located = {name: _locate(writer, prepared, name) for name in names}
        num_patients = {name: each.num_patients for name, each in located.items()}
        fitted = fit_findings(writer, prepared, point)
        written: dict[Split, list[PredictionRow]] = {}
        for number, name in enumerate(names):
            written[name] = _own_reports(writer, prepared, name)
            progress(30 * (number + 1), 100)
        said = {
            name: _sentences(writer, rows, located[name], fitted) for name, rows in written.items()
        }
        if num_patients["validation"] > 1:  # of one, no sentence gets a confidence
            fitted = _fit_sentences(fitted, said["validation"])
        progress(90, 100)
        report: dict[str, Any] = {
            "calibration": fitted.model_dump(mode="json"),
            **{name: _measure(located[name], said[name], fitted) for name in written},
            "abstention": abstention_rates(prepared, located[split].studies),
            "patients": num_patients,
            "inputs": {name: prepared.sha256(each.studies) for name, each in located.items()},
        }
        write_json(writer.run_dir / FILE, report)
        kinds = [kind for kind in ("findings", "sentences") if report[split][kind]]
        drawn = {f"{kind}, {split}": report[split][kind] for kind in kinds}
        draw_reliability(drawn, writer.run_dir / "reliability.png")
        progress(100, 100)
        return report


def _own_reports(writer: ReportWriter, prepared: Prepared, split: Split) -> list[PredictionRow]:
    """The run's predictions; where these were written with other settings, new reports."""
    try:
        path = writer.run_dir / f"predictions_{split}.jsonl"
        return generate(writer, prepared, split, path)
    except CtscribeError as error:
        if error.code != "E_RUN_EXISTS":
            raise
    threshold = writer.calibration and writer.calibration.cue_threshold
    way = sha256_of_json([writer.generate.model_dump(mode="json"), threshold])[:8]
    return generate(writer, prepared, split, writer.run_dir / "calibrate" / f"{split}-{way}.jsonl")


@final
@dataclass(frozen=True)
class _Located:
    """The features, labels and finding logits of a split's scans."""

    store: FeatureStore
    studies: list[StudyRow]
    labels: np.ndarray
    logits: Float64[np.ndarray, "studies 18"]

    @property
    def num_patients(self) -> int:
        return len({study.patient_id for study in self.studies})

    @property
    def truth(self) -> Bool[np.ndarray, "cells"]:
        """Whether each finding of each study is present."""
        return np.asarray(self.labels.reshape(-1) > 0)


def _locate(writer: ReportWriter, prepared: Prepared, split: Split) -> _Located:
    studies = prepared.scans(split)
    store = writer.features(prepared, studies)
    logits = writer.finding_logits([store.visual(study) for study in studies])
    return _Located(store, studies, np.array([known_labels(study) for study in studies]), logits)


def fit_findings(writer: ReportWriter, prepared: Prepared, point: str | None = None) -> Calibration:
    """Fits the findings' calibration on validation and writes it into the run's folder.

    Both thresholds are chosen for ``point``; without one, that of cues stays as `tune` set it.

    Raises:
        CtscribeError: As `calibrate`.
    """
    located = _locate(writer, prepared, "validation")
    fitted = fit_table(located.logits, located.labels > 0)
    probability = fitted.of_table(located.logits)
    threshold = choose_threshold(probability, located.labels > 0, point or "f1")
    before = writer.calibration
    calibration = Calibration(
        weights_sha256=writer.weights_sha256,
        finding_slope=fitted.slopes[0],
        finding_offsets=fitted.offsets,
        threshold=threshold,
        cue_threshold=before.cue_threshold if before and not point else threshold,
        remark_bounds=fit_remark_bounds(probability, located.labels > 0),
    )
    write_json(writer.run_dir / FILE, {"calibration": calibration.model_dump(mode="json")})
    return calibration


def fit_remark_bounds(
    probability: Float64[np.ndarray, "studies 18"], truth: Bool[np.ndarray, "studies 18"]
) -> tuple[float, float] | None:
    """The (low, high) bounds of `Calibration.remark_bounds`; None for fewer scans than `ONE_IN`.

    ``low`` is the quantile 1/`ONE_IN` of the least probable finding that true reports state,
    ``high`` the quantile 1 − 1/`ONE_IN` of the most probable one that they leave out.
    """
    if len(truth) < ONE_IN:
        return None
    least_stated = np.where(truth, probability, 1.0).min(axis=1)
    most_left_out = np.where(truth, 0.0, probability).max(axis=1)
    low = np.quantile(least_stated, 1 / ONE_IN, method="lower")
    high = np.quantile(most_left_out, 1 - 1 / ONE_IN, method="higher")
    return float(low), float(high)


@final
@dataclass(frozen=True)
class _Sentences:
    """All written sentences that name a finding."""

    log_odds: Float64[np.ndarray, "sentences 2"]
    """Raw; see `sentence_log_odds`."""
    truth: Bool[np.ndarray, "sentences"]
    patients: tuple[str, ...]


def _sentences(
    writer: ReportWriter,
    rows: Sequence[PredictionRow],
    located: _Located,
    calibration: Calibration,
) -> _Sentences:
    probabilities = calibration.findings(located.logits).tolist()
    numbers = {study.scan_id: number for number, study in enumerate(located.studies)}
    log_odds, truth, patients = [], [], []
    for row in rows:
        number = numbers[row.scan_id]
        report = writer.read(row.findings, row.impression)
        if not report.sentences:
            continue
        visual = replace(located.store.visual(located.studies[number]), cue=row.cue)
        forced = writer.teacher_force(report, visual)
        scores = log_probs(writer.qwen, forced, [frozenset(range(forced.num_pairs))])[0, :-1]
        totals = (report.tokens.float() @ scores).tolist()
        for sentence, members, total in zip(report.sentences, report.tokens, totals, strict=True):
            odds = sentence_log_odds(sentence, total, int(members.sum()), probabilities[number])
            if odds is not None:
                log_odds.append(odds)
                truth.append(is_true(sentence, located.labels[number].tolist()))
                patients.append(row.patient_id)
    return _Sentences(
        np.array(log_odds, float).reshape(-1, 2), np.array(truth, bool), tuple(patients)
    )


def _fit_sentences(calibration: Calibration, said: _Sentences) -> Calibration:
    fitted = fit_temperature(said.log_odds, np.zeros(len(said.truth), int), said.truth, 1)
    return calibration.model_copy(
        update={
            "sentence_slopes": (fitted.slopes[0], fitted.slopes[1]),
            "sentence_offset": fitted.offsets[0],
        }
    )


def _measure(located: _Located, said: _Sentences, calibration: Calibration) -> dict[str, Any]:
    patients = tuple(study.patient_id for study in located.studies for _ in FINDINGS)
    claims = {
        "findings_raw": Claims(
            1 / (1 + np.exp(-located.logits.reshape(-1))), located.truth, patients
        ),
        "findings": Claims(
            calibration.findings(located.logits).reshape(-1), located.truth, patients
        ),
    }
    if calibration.sentence_slopes is not None and len(said.truth):
        stated = calibration.sentences(said.log_odds)
        claims["sentences"] = Claims(stated, said.truth, said.patients)
    return {"sentences": None, **{kind: reliability(each) for kind, each in claims.items()}}


def abstention_rates(prepared: Prepared, studies: Sequence[StudyRow]) -> dict[str, Any]:
    """Share of good studies refused as not assessable, and of noise, blank and shuffled frames.

    Returns:
        Per kind ``refused``, ``of``, and the share's ``value`` with its exact 95 % interval.
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
            "noise": (
                noise_frames(seed, slices, (height, width), windows, prepared.projection),
                (),
            ),
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
