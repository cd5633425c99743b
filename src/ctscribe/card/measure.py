"""How well the true report fits what is shown: cross entropy under any view."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.card.views import View, make_views
from ctscribe.config import Recipe
from ctscribe.evaluate.intervals import (
    draw_patients,
    patient_index,
    sum_by_patient,
    with_interval,
)
from ctscribe.generate import load_for_inference
from ctscribe.model.features import store_features
from ctscribe.model.qwen import answer_losses
from ctscribe.pairs.collate import collate_pairs
from ctscribe.pairs.dataset import PairDataset
from ctscribe.rows import PairRow, StudyRow
from ctscribe.train.validation import validation_pairs


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
