"""Does the model look? Cross entropy of the true report on the own and on another volume."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float64

from ctscribe.config import Recipe
from ctscribe.evaluate.intervals import (
    draw_patients,
    patient_index,
    percentile_interval,
    sum_by_patient,
)
from ctscribe.rows import StudyRow

if TYPE_CHECKING:
    from ctscribe.pairs.collate import Batch


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
    own_ce, other_ce, scans = _cross_entropies(run_dir, prepared_dir, recipe, studies)
    patients = patient_index([scan.patient_id for scan in scans])
    statistics = np.stack([other_ce - own_ce, np.ones(len(scans))], axis=1)
    draws = draw_patients(int(patients.max()) + 1, recipe.evaluate.resamples, recipe.evaluate.seed)
    sums = draws @ sum_by_patient(statistics, patients)
    interval = percentile_interval(sums[:, 0] / sums[:, 1])
    low, high = interval if interval else (None, None)
    return {
        "value": float(np.mean(other_ce - own_ce)),
        "low": low,
        "high": high,
        "scans": [
            {"scan_id": scan.scan_id, "own_ce": own, "other_ce": other}
            for scan, own, other in zip(scans, own_ce.tolist(), other_ce.tolist(), strict=True)
        ],
    }


def _cross_entropies(
    run_dir: Path, prepared_dir: Path, recipe: Recipe, studies: Sequence[StudyRow]
) -> tuple[Float64[np.ndarray, "scans"], Float64[np.ndarray, "scans"], list[StudyRow]]:
    """CE of every scan's report given the own and a stranger's volume, nats per answer token."""
    import torch

    from ctscribe.model.checkpoint import load_model
    from ctscribe.model.features import store_features
    from ctscribe.model.qwen import answer_losses
    from ctscribe.pairs.collate import collate_pairs
    from ctscribe.pairs.dataset import PairDataset
    from ctscribe.train.validation import validation_pairs

    qwen, tokenizer = load_model(run_dir / "best", recipe.model.dtype)
    qwen.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    by_name = {study.volume_name: study for study in studies}
    rows = validation_pairs(studies)
    scans = [by_name[row.study] for row in rows[::2]]
    store = store_features(qwen, prepared_dir, scans, windows=recipe.slices.windows)
    limit = qwen.config.text_config.max_position_embeddings
    pairs = PairDataset(by_name, rows, tokenizer, store.visual, limit)
    measured: list[list[torch.Tensor]] = [[], []]
    size = recipe.generate.batch_size
    with torch.inference_mode():
        for start in range(0, len(pairs), size):
            chosen = [pairs[i] for i in range(start, min(start + size, len(pairs)))]
            batch = collate_pairs(chosen, int(tokenizer.pad_token_id))
            for branch, values in zip(
                (batch["positive"], batch["negative"]), measured, strict=True
            ):
                losses = answer_losses(qwen, cast("Batch", branch), recipe.model.positions)
                values.append(losses.per_sample().double().cpu())
    own, other = (torch.cat(values).numpy() for values in measured)
    return own, other, scans
