"""The stage: pairs in, the best weights and a log out, continuing where it stopped."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.config import Recipe
from ctscribe.files import ProgressCallback, read_json
from ctscribe.model.checkpoint import load_model
from ctscribe.model.slice_attention import attach, attached, warmed_head
from ctscribe.pairs.dataset import PairDataset
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import StudyRow, read_rows
from ctscribe.run import open_run
from ctscribe.train.fit import TrainResult, fit
from ctscribe.train.setup import (
    asked,
    read_pairs,
    shown_volumes,
    training_arguments,
    visual_source,
)
from ctscribe.train.validation import validation_pairs


def train(
    run_dir: Path,
    prepared_dir: Path,
    pairs_path: Path,
    recipe: Recipe,
    start: Path | None = None,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> TrainResult:
    """Trains on pairs, or continues an interrupted run; the best weights are in ``best``.

    Runs alone, or on several processes, which share the pairs of each update: under ``torchrun``
    each holds the whole model, under ``accelerate launch --use_fsdp`` its part of every weight.

    Args:
        run_dir: New, or one that was started with the same request.
        prepared_dir: What `prepare` wrote.
        pairs_path: ``pairs.jsonl``.
        recipe: The knobs.
        start: Starting checkpoint; None takes ``model.weights`` or the preset's own.
        progress: Told (updates done, all updates).

    Raises:
        CtscribeError: ``E_RUN_EXISTS``, ``E_MISSING``, ``E_PAIRS``, ``E_EMPTY_SPLIT``,
            ``E_WEIGHTS``, ``E_TOO_FEW``, ``E_TOO_LONG``, ``E_NAN``, ``E_MEMORY``, ``E_SHARDED``.
    """
    arguments = training_arguments(run_dir, recipe)
    with arguments.main_process_first(local=False):
        open_run(run_dir, "train", asked(recipe, arguments, pairs_path, start))
    if (run_dir / "result.json").exists():
        return TrainResult(**read_json(run_dir / "result.json"))
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    rows = read_pairs(pairs_path, recipe.pairs.strategy)
    held_out = studies_of(studies, "validation", recipe.pairs.validation_fraction)
    validation_rows = validation_pairs(held_out)
    weights = start or recipe.model.weights or recipe.model.preset
    qwen, tokenizer = _learner(weights, recipe)
    qwen.to(arguments.device)
    by_name = {study.volume_name: study for study in studies}
    longest = qwen.config.text_config.max_position_embeddings
    shown = shown_volumes([*rows, *validation_rows])
    with arguments.main_process_first(local=False):
        needed = [study for study in studies if study.volume_name in shown]
        visual = visual_source(qwen, prepared_dir, needed, rows, recipe)
    taught, judged = (
        PairDataset(by_name, part, tokenizer, visual, longest) for part in (rows, validation_rows)
    )
    return fit(arguments, qwen, tokenizer, taught, judged, recipe, progress=progress)


def _learner(
    weights: str | Path, recipe: Recipe
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model that starts to learn, with finding queries where the recipe asks for them."""
    qwen, tokenizer = load_model(weights, recipe.model.dtype)
    if recipe.model.slice_attention and attached(qwen) is None:
        torch.manual_seed(recipe.train.seed)  # the same queries in every process
        attach(qwen, warmed_head(Path(weights)))
    return qwen, tokenizer
