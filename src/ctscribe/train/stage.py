"""The stage: pairs in, the best weights and a log out, continuing where it stopped."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import final

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Qwen2_5_VLForConditionalGeneration,
    TrainingArguments,
)

from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, read_json, write_json
from ctscribe.model.checkpoint import load_model, save_model
from ctscribe.model.slice_attention import attach, attached, warmed_head
from ctscribe.pairs.anatomy import write_healed
from ctscribe.pairs.collate import collate_pairs
from ctscribe.pairs.dataset import PairDataset
from ctscribe.pairs.splits import studies_of
from ctscribe.rows import StudyRow, read_rows
from ctscribe.run import open_run
from ctscribe.train.checkpoints import newest_complete
from ctscribe.train.follow import Follower
from ctscribe.train.log import RunLog
from ctscribe.train.order import EpochsInOrder
from ctscribe.train.scorer import ReportScorer, choose_trainable
from ctscribe.train.setup import (
    asked,
    beta_of,
    checkpoint_steps,
    count_updates,
    hard_pairs,
    learning_rates,
    objective_of,
    read_pairs,
    require_reach,
    shown_volumes,
    training_arguments,
    visual_source,
)
from ctscribe.train.trainer import PairTrainer
from ctscribe.train.validation import validate, validation_pairs


@final
@dataclass(frozen=True)
class TrainResult:
    """How a run ended; ``result.json``, the last file written."""

    best_validation_loss: float
    """Cross entropy of validation reports, nats per answer token."""
    best_step: int
    num_steps: int


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

    Runs alone or under ``torchrun`` on several processes, which share the pairs of each update.

    Args:
        run_dir: New, or one that was started with the same request.
        prepared_dir: What `prepare` wrote.
        pairs_path: ``pairs.jsonl``.
        recipe: The knobs.
        start: Starting checkpoint; None takes ``model.weights`` or the preset's own.
        progress: Told (updates done, all updates).

    Raises:
        CtscribeError: ``E_RUN_EXISTS``, ``E_MISSING``, ``E_PAIRS``, ``E_EMPTY_SPLIT``,
            ``E_WEIGHTS``, ``E_TOO_FEW``, ``E_TOO_LONG``, ``E_NAN``, ``E_MEMORY``.
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
    qwen, tokenizer = load_model(weights, recipe.model.dtype)
    if recipe.model.slice_attention and attached(qwen) is None:
        attach(qwen, warmed_head(Path(weights)))
    qwen.to(arguments.device)
    by_name = {study.volume_name: study for study in studies}
    longest = qwen.config.text_config.max_position_embeddings
    shown = shown_volumes([*rows, *validation_rows])
    with arguments.main_process_first(local=False):
        needed = [study for study in studies if study.volume_name in shown]
        needed += write_healed(prepared_dir, by_name, rows)
        visual = visual_source(qwen, prepared_dir, needed, rows, recipe)
    return fit(
        arguments,
        qwen,
        tokenizer,
        PairDataset(by_name, rows, tokenizer, visual, longest),
        PairDataset(by_name, validation_rows, tokenizer, visual, longest),
        recipe,
        progress=progress,
    )


def fit(
    arguments: TrainingArguments,
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    training: PairDataset,
    validation: PairDataset,
    recipe: Recipe,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> TrainResult:
    """`train` on data sets that are there already.

    Args:
        arguments: From `setup.training_arguments`.
        qwen: Starting weights; trained in place.
        tokenizer: The model's.
        training: Its pairs.
        validation: Pairs of a scan and another patient's.
        recipe: The knobs.
        progress: Told (updates done, all updates).
    """
    run_dir, knobs = Path(arguments.output_dir), recipe.train
    found = newest_complete(run_dir)
    step = found[1].step if found else 0
    scorer = _scorer(qwen, recipe)
    hard = hard_pairs(training, recipe, arguments, step)
    order = EpochsInOrder(training, knobs.epochs, knobs.seed, hard and hard.epoch)
    num_steps = count_updates(len(order), arguments)
    arguments.warmup_steps = round(knobs.warmup_ratio * num_steps)
    trainer = PairTrainer(
        objective=objective_of(recipe),
        beta=recipe.objective.beta,
        label_weight=recipe.objective.label_weight,
        rates=learning_rates(recipe),
        packed=knobs.pack_pairs,
        model=scorer,
        args=arguments,
        train_dataset=order,
        data_collator=partial(collate_pairs, pad_id=tokenizer.pad_token_id),
    )
    accelerator = trainer.accelerator
    require_reach(recipe, sharded=trainer.is_fsdp_enabled)
    trainer.gaps = None if hard is None else []
    accelerator.wait_for_everyone()  # nobody writes before everybody has looked
    follower = Follower(
        trainer=trainer,
        run_dir=run_dir,
        epochs=knobs.epochs,
        checkpoint_steps=checkpoint_steps(num_steps, knobs.epochs * knobs.checkpoints_per_epoch),
        validate=partial(
            validate,
            scorer,
            validation,
            pad_id=tokenizer.pad_token_id,
            batch_size=4 * knobs.pairs_per_device,
            process=accelerator.process_index,
            num_processes=accelerator.num_processes,
            add_up=partial(accelerator.reduce, reduction="sum"),
        ),
        save_best=partial(save_model, run_dir / "best", qwen, tokenizer),
        best=(found[1].best_step, found[1].best_validation_ce) if found else (0, float("inf")),
        weight=beta_of(recipe, num_steps, found[0] if found else None),
        hard=hard,
        log=RunLog(run_dir, step) if accelerator.is_main_process else None,
        progress=progress,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(follower)
    _run(trainer, found[0] if found else None)
    return _finish(follower, num_steps)


def _scorer(qwen: Qwen2_5_VLForConditionalGeneration, recipe: Recipe) -> ReportScorer:
    torch.manual_seed(recipe.train.seed)
    choose_trainable(
        qwen,
        tuning=recipe.model.tuning,
        freeze_tower=recipe.model.freeze_tower,
        freeze_merger=recipe.model.freeze_merger,
        lora_r=recipe.model.lora_r,
        lora_alpha=recipe.model.lora_alpha,
    )
    if recipe.train.gradient_checkpointing:
        qwen.activation_checkpointing_enable({"use_reentrant": False})
    return ReportScorer(qwen, recipe.model.positions)


def _run(trainer: PairTrainer, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise CtscribeError(
            "E_MEMORY",
            f"a step must fit into the device's memory, but {', '.join(trainer.studies)} did not; "
            "lower train.pairs_per_device or slices.num_slices, the last checkpoint is kept",
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    # torch has an error type for a full GPU and only a sentence for a full CPU
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return full or "DefaultCPUAllocator" in str(error)


def _finish(follower: Follower, num_steps: int) -> TrainResult:
    best_step, best_ce = follower.best
    result = TrainResult(best_ce, best_step, num_steps)
    if follower.log is not None:
        follower.log.draw()
        write_json(follower.run_dir / "result.json", asdict(result))
    follower.trainer.accelerator.wait_for_everyone()
    return result
