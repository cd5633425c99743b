"""One run → its image-dependence card: the same studies under every view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe import RESEARCH_USE
from ctscribe.base.files import ProgressCallback, sha256_of_json, write_json
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, PredictionRow, StudyRow, read_rows
from ctscribe.base.runs import open_run, weights_sha256
from ctscribe.data.splits import Split, studies_of
from ctscribe.learn.model.features import store_features
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import collate_pairs
from ctscribe.learn.pairs.dataset import PairDataset
from ctscribe.learn.train.scorer import validation_pairs
from ctscribe.measure.card_scores import score_card
from ctscribe.measure.card_views import VIEWS, View, make_views
from ctscribe.measure.intervals import (
    draw_patients,
    patient_index,
    sum_by_patient,
    with_interval,
)
from ctscribe.measure.scans import as_reports, match_predictions
from ctscribe.write.generate import load_for_inference, write_scans


def measure_gap(
    run_dir: Path, prepared_dir: Path, recipe: Recipe, studies: Sequence[StudyRow]
) -> dict[str, Any]:
    """Mismatch gap: CE of each report on another patient's volume minus CE on its own.

    A model that recites the template has a gap of 0.

    Args:
        run_dir: Training run with its ``best`` weights.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        studies: Of at least two patients; the first volume of each scan is measured.

    Returns:
        ``value``, ``low`` and ``high`` of the gap in nats per answer token, the interval over
        draws of patients, and ``scans``: per scan its ``own_ce`` and ``other_ce``.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_WEIGHTS`` without
            complete weights.
    """
    scans, strangers = scans_with_strangers(studies)
    qwen, tokenizer = load_for_inference(run_dir, recipe)
    store = store_features(qwen, prepared_dir, scans, windows=recipe.slices.windows)
    views = make_views(qwen, store, strangers)
    own, other = (
        report_ce(qwen, tokenizer, scans, views[name], recipe) for name in ("real", "other_patient")
    )
    patients = patient_index([scan.patient_id for scan in scans])
    sums = sum_by_patient(np.stack([other - own, np.ones(len(scans))], axis=1), patients)
    drawn = draw_patients(len(sums), recipe.evaluate.resamples, recipe.evaluate.seed) @ sums
    return {
        **with_interval(np.mean(other - own, keepdims=True), drawn[:, 0] / drawn[:, 1]),
        "scans": [
            {"scan_id": scan.scan_id, "own_ce": own_ce, "other_ce": other_ce}
            for scan, own_ce, other_ce in zip(scans, own.tolist(), other.tolist(), strict=True)
        ],
    }


def scans_with_strangers(
    studies: Sequence[StudyRow],
) -> tuple[list[StudyRow], dict[str, StudyRow]]:
    """The first volume of each scan, and by its name the other patient's drawn for validation.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients.
    """
    by_name = {study.volume_name: study for study in studies}
    rows = validation_pairs(studies)
    strangers = {row.study: by_name[str(row.volume)] for row in rows[1::2]}
    return [by_name[name] for name in strangers], strangers


def report_ce(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scans: Sequence[StudyRow],
    view: View,
    recipe: Recipe,
) -> Float64[np.ndarray, "scans"]:
    """CE of every scan's true report given what ``view`` shows, mean over its tokens, in nats.

    Args:
        qwen: The model.
        tokenizer: Its tokenizer.
        scans: One row per scan.
        view: What is shown of each.
        recipe: The run's recipe.

    Raises:
        CtscribeError: ``E_TOO_LONG`` or ``E_REPORT``, naming the study.
    """
    rows = [
        PairRow(study=scan.volume_name, role="positive", volume=scan.volume_name) for scan in scans
    ]
    by_name = {scan.volume_name: scan for scan in scans}
    limit = qwen.config.text_config.max_position_embeddings
    shown = PairDataset(by_name, rows, tokenizer, lambda study, _: view(study), limit)
    size, pad_id = recipe.generate.batch_size, int(tokenizer.pad_token_id)
    values = []
    with torch.inference_mode():
        for start in range(0, len(shown), size):
            chosen = [shown[i] for i in range(start, min(start + size, len(shown)))]
            batch = collate_pairs(chosen, pad_id)["positive"]
            losses = answer_losses(qwen, batch, recipe.model.positions)
            values.append(losses.per_sample().double().cpu())
    return torch.cat(values).numpy()


def make_card(
    run_dir: Path,
    prepared_dir: Path,
    recipe: Recipe,
    split: Split,
    out_dir: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Measures and writes ``card.json``.

    The reports stay beside them as ``reports_<view>.jsonl``; an interrupted card goes on there.

    Args:
        run_dir: Training run with its ``best`` weights.
        prepared_dir: What `prepare` wrote.
        recipe: The run's recipe.
        split: Whose scans, of at least two patients.
        out_dir: The card's folder.
        progress: Told (volumes shown, all); each view is shown to score, and again to write.

    Returns:
        The card, as in ``card.json``; see `score_card`.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_WEIGHTS`` without
            complete weights, ``E_RUN_EXISTS`` when the folder holds another model's card.
    """
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    studies = studies_of(studies, split, recipe.pairs.validation_fraction)
    scans, strangers = scans_with_strangers(studies)
    qwen, tokenizer = load_for_inference(run_dir, recipe)
    asked = _identify(run_dir, split, scans)
    open_run(out_dir, "card", {**asked, "recipe": recipe.model_dump(mode="json")})
    store = store_features(qwen, prepared_dir, scans, windows=recipe.slices.windows, noise=True)
    cross_entropy, answers, truth = {}, {}, as_reports(scans)
    for number, (name, view) in enumerate(make_views(qwen, store, strangers).items()):
        tell = _part(number, len(scans), progress)
        path = out_dir / f"reports_{name}.jsonl"
        cross_entropy[name] = report_ce(qwen, tokenizer, scans, view, recipe)
        tell(0, len(scans))
        write_scans(qwen, tokenizer, scans, view, recipe, path, progress=tell)
        tell(len(scans), len(scans))
        answers[name], _ = match_predictions(read_rows(path, PredictionRow), truth)
    card = asked | score_card(cross_entropy, answers, truth, recipe.evaluate)
    card["use"] = RESEARCH_USE
    write_json(out_dir / "card.json", card)
    return card


def _identify(run_dir: Path, split: Split, scans: Sequence[StudyRow]) -> dict[str, Any]:
    return {
        "weights_sha256": weights_sha256(run_dir / "best"),
        "split": split,
        "studies_sha256": sha256_of_json([scan.model_dump(mode="json") for scan in scans]),
    }


def _part(number: int, num_scans: int, progress: ProgressCallback) -> ProgressCallback:
    """Tells the reports written from one view as part of the whole, their true ones before."""
    before, total = (2 * number + 1) * num_scans, 2 * len(VIEWS) * num_scans
    return lambda done, _: progress(before + done, total)
