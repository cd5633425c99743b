"""The training stage: pairs in, the best weights and a log out; resumes an interrupted run."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainingArguments,
)

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, brief, sha256_of_file, write_json
from ctscribe.base.locks import one_writer
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, StudyRow, read_rows
from ctscribe.base.runs import open_run, read_result, require_same_run, start_sha256
from ctscribe.base.types import Strategy
from ctscribe.base.workers import launched
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import is_sharded, load_model, save_model
from ctscribe.learn.model.cues import label_cues
from ctscribe.learn.model.families import backbone_of, with_markers
from ctscribe.learn.model.feature_store import find_encoder
from ctscribe.learn.model.features import frames_of, store_together
from ctscribe.learn.model.finding_queries import (
    attach_finding_queries,
    finding_queries_of,
    read_warmed_head,
)
from ctscribe.learn.model.packing import require_full_attention
from ctscribe.learn.model.positions import position_ids
from ctscribe.learn.model.projector import Encoder, attach_projector, projector_of
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Pair, PairDataset, Visual, VisualSource, strategy_of
from ctscribe.learn.train.arguments import (
    checkpoint_steps,
    count_updates,
    pairs_per_update,
    require_sharding,
    sharding_asked,
    training_arguments,
)
from ctscribe.learn.train.callback import Beta, RunCallback, damaged, newest_complete
from ctscribe.learn.train.epochs import EpochsInOrder, ErrorsAsItems, HardPairs, collate_or_error
from ctscribe.learn.train.memory import Checkpointing, step_memory
from ctscribe.learn.train.run_log import MetricsRow, RunLog, draw_loss_curve
from ctscribe.learn.train.scorer import (
    ReportScorer,
    choose_trainable,
    enable_checkpointing,
    learning_rates,
)
from ctscribe.learn.train.trainer import PairTrainer
from ctscribe.learn.train.validation import Validation, validate, validation_pairs


def request_of(
    recipe: Recipe,
    arguments: TrainingArguments,
    prepared: Prepared,
    pairs_path: Path,
    start: str | Path | None,
) -> dict[str, Any]:
    """What a run depends on, by which its folder is recognised when it is resumed.

    Raises:
        CtscribeError: ``E_MISSING`` without pairs.
    """
    if not pairs_path.is_file():
        raise CtscribeError("E_MISSING", f"{pairs_path} must exist, as `ctscribe pairs` writes it")
    return {
        "recipe": recipe.as_asked(),
        "studies_sha256": prepared.sha256(prepared.studies),
        "pairs_sha256": sha256_of_file(pairs_path),
        "start": None if start is None else start_sha256(start),
        "pairs_per_update": pairs_per_update(arguments),
        **({"encoder": encoder.hash} if (encoder := encoder_of(recipe, prepared)) else {}),
        # only a sharded run can read the checkpoints of a sharded run
        **({"sharded": True} if sharding_asked() else {}),
    }


def read_pairs(pairs_path: Path, strategy: Strategy) -> list[PairRow]:
    """Reads ``pairs.jsonl`` and refuses negatives of another kind than the recipe's.

    Raises:
        CtscribeError: ``E_PAIRS``, ``E_MISSING``, ``E_ROW``.
    """
    rows = read_rows(pairs_path, PairRow)
    found = strategy_of(rows)
    if found != strategy:
        raise CtscribeError(
            "E_PAIRS",
            f"{pairs_path} must hold the recipe's pairs.strategy {strategy}, but it holds {found}",
        )
    for row in rows:
        if row.role == "negative" and row.volume is not None and row.disputed is None:
            raise CtscribeError(
                "E_PAIRS",
                f"a negative must name the findings that it disputes, but that of {row.study} in "
                f"{pairs_path} does not; run pairs again",
            )
    return rows


def visual_source(
    qwen: PreTrainedModel,
    prepared: Prepared,
    rows: Sequence[PairRow],
    recipe: Recipe,
    progress: ProgressCallback = lambda done, total: None,
) -> VisualSource:
    """The visual inputs of training: stored features, or frames where the tower is trained.

    Features of all volumes that ``rows`` may show are computed first; ``progress`` is called with
    (volumes whose features are stored, all volumes). Each visual input also has the texts of its
    prompt: depth markers, where the model's family uses them, and the cue, with ``model.cues``.
    """
    backbone = backbone_of(qwen)
    visual: VisualSource = partial(frames_of, backbone, prepared)
    if recipe.model.freeze_tower:
        shown = {n for row in rows for n in (row.volume or row.study, *(row.alternatives or ()))}
        visual = store_together(
            qwen,
            prepared,
            [study for study in prepared.studies if study.volume_name in shown],
            noise=any(row.noise_seed is not None for row in rows),
            merged=recipe.model.freeze_merger,
            progress=progress,
        ).visual
    told = label_cues(visual) if recipe.model.cues else visual

    def with_text(study: StudyRow, noise_seed: int | None = None) -> Visual:
        return with_markers(backbone, told(study, noise_seed), recipe.model.positions)

    return with_text


def _require_places(qwen: PreTrainedModel, pairs: PairDataset, recipe: Recipe) -> None:
    """Checks on the first scan, before the run has a folder, that its position ids can be made."""
    batch = collate_samples([pairs[0].positive], pad_id=0)
    position_ids(
        qwen.config,
        batch["input_ids"],
        batch["attention_mask"],
        batch["video_grid_thw"],
        batch["position_mm"],
        recipe.model.positions,
    )


@final
@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run: ``result.json``, the last file written."""

    best_validation_loss: float
    """Cross entropy of validation reports, nats per answer token."""
    best_step: int
    num_steps: int


def train(
    run_dir: Path,
    prepared: Prepared,
    pairs_path: Path,
    recipe: Recipe,
    start: str | Path | None = None,
    *,
    progress: ProgressCallback = lambda done, total: None,
    storing: ProgressCallback = lambda done, total: None,
    logged: Callable[[MetricsRow], None] = lambda row: None,
    told: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """Trains on pairs, or continues an interrupted run; the best weights are in ``best``.

    Runs in one process, or in several that share the pairs of each update: under ``torchrun`` each
    holds the whole model (DDP), under ``accelerate launch --use_fsdp`` a shard of every weight.

    ``run_dir`` is new or was started with the same request; nothing is written into it before all
    checks have passed. ``start`` is a folder, a hub id or a preset; None takes the recipe's preset.
    ``storing`` is called with (volumes whose features are stored, all volumes), ``progress`` with
    (updates done, all updates), ``logged`` with each update's row, and ``told`` with sentences for
    the user on shared prompts and memory.

    Raises:
        CtscribeError: ``E_BUSY``, ``E_PREPARED``, ``E_RUN_EXISTS``, ``E_MISSING``, ``E_PAIRS``,
            ``E_EMPTY_SPLIT``, ``E_WEIGHTS``, ``E_TOO_FEW``, ``E_REPORT``, ``E_TOO_LONG``,
            ``E_POSITIONS``, ``E_NAN``, ``E_MEMORY``, ``E_SHARDED``, ``E_OPTIMIZER``,
            ``E_CHECKPOINT``, ``E_ENCODER``, ``E_RECIPE``.
    """
    prepared.require(recipe)
    with one_writer(run_dir) if launched()[0] == 0 else nullcontext():
        arguments = training_arguments(run_dir, recipe)
        request = request_of(recipe, arguments, prepared, pairs_path, start)
        require_same_run(run_dir, "train", request)
        if (run_dir / "result.json").exists():
            return read_result(run_dir / "result.json", TrainResult)
        rows = read_pairs(pairs_path, recipe.pairs.strategy)
        parts = rows, validation_pairs(prepared.split("validation"))
        qwen, tokenizer = learner(
            start or recipe.model.preset, recipe, encoder_of(recipe, prepared)
        )
        qwen.to(arguments.device)
        training, validation = _data_sets(prepared, parts, recipe, qwen, tokenizer, storing)
        count_updates(recipe.train.epochs * len(training), arguments)
        with arguments.main_process_first(local=False):
            open_run(run_dir, "train", request)
        callbacks: dict[str, Any] = {"progress": progress, "logged": logged, "told": told}
        return fit(arguments, qwen, tokenizer, training, validation, recipe, **callbacks)


def _data_sets(
    prepared: Prepared,
    parts: tuple[Sequence[PairRow], Sequence[PairRow]],
    recipe: Recipe,
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    storing: ProgressCallback,
) -> tuple[PairDataset, PairDataset]:
    """The training and the validation data set, checked before the first step."""
    longest = qwen.config.text_config.max_position_embeddings
    rows = [row for part in parts for row in part]
    visual = visual_source(qwen, prepared, rows, recipe, storing)
    training, validation = (
        PairDataset(prepared.by_name, part, tokenizer, visual, longest) for part in parts
    )
    for dataset in (training, validation):
        dataset.require_reports()
    _require_sharing(training, recipe, qwen)
    _require_places(qwen, training, recipe)
    return training, validation


def fit(
    arguments: TrainingArguments,
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training: PairDataset,
    validation: PairDataset,
    recipe: Recipe,
    *,
    progress: ProgressCallback = lambda done, total: None,
    logged: Callable[[MetricsRow], None] = lambda row: None,
    told: Callable[[str], None] = lambda line: None,
) -> TrainResult:
    """The training loop of `train`; the model is trained in place.

    ``arguments`` come from `training_arguments`, ``validation`` from `validation_pairs`.
    """
    knobs, run_dir = recipe.train, Path(arguments.output_dir)
    checkpoint, note = newest_complete(run_dir) or (None, None)
    steps_done = note.step if note else 0
    hard = _hard_pairs(training, recipe, arguments, steps_done)
    couples = _couples(training, recipe, told)
    order = EpochsInOrder(training, knobs.epochs, knobs.seed, hard and hard.epoch, couples)
    num_steps = count_updates(len(order), arguments)
    progress(steps_done, num_steps)
    arguments.warmup_steps = round(knobs.warmup_ratio * num_steps)
    pad_id = int(tokenizer.pad_token_id)
    scorer = make_scorer(qwen, recipe, knobs.pairs_per_device * training.longest(), told)
    trainer = _trainer(arguments, scorer, order, pad_id, recipe)
    trainer.gaps = None if hard is None else []
    # no process may write before all have looked for a checkpoint
    trainer.accelerator.wait_for_everyone()
    callback = RunCallback(
        trainer=trainer,
        epochs=knobs.epochs,
        checkpoint_steps=checkpoint_steps(num_steps, knobs.epochs * knobs.checkpoints_per_epoch),
        validate=_validation(trainer, validation, pad_id),
        save_best=partial(_save_best, trainer, qwen, tokenizer),
        best=(note.best_step, note.best_validation_ce) if note else (0, float("inf")),
        beta=Beta(recipe.objective, checkpoint),
        hard=hard,
        log=RunLog(run_dir, steps_done, MetricsRow)
        if trainer.accelerator.is_main_process
        else None,
        logged=logged,
        progress=progress,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(callback)
    _run(trainer, checkpoint)
    return _finish(callback, num_steps)


def encoder_of(recipe: Recipe, prepared: Prepared) -> Encoder | None:
    """The encoder whose features replace the tower's; None where the tower is used.

    Raises:
        CtscribeError: ``E_ENCODER`` where the prepared folder holds none of them.
    """
    name = recipe.model.encoder
    return None if name is None else find_encoder(prepared, name)


def learner(
    weights: str | Path, recipe: Recipe, encoder: Encoder | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to train, with finding queries and an encoder's projector where the recipe asks.

    With an ``encoder`` the queries start untrained: a warm-up's head was trained on the tower's
    features.

    Raises:
        CtscribeError: ``E_WEIGHTS``, ``E_ENCODER`` for weights that read another encoder's.
    """
    qwen, tokenizer = load_model(weights, recipe.model.dtype)
    read_by_encoder(qwen, encoder, recipe.train.seed)
    if finding_queries_of(qwen) is not None:
        return qwen, tokenizer
    head = read_warmed_head(Path(weights)) if encoder is None else None
    if recipe.model.slice_attention or (recipe.model.cues and head is not None):
        torch.manual_seed(recipe.train.seed)  # the same queries in every process
        attach_finding_queries(qwen, head)
    return qwen, tokenizer


def read_by_encoder(qwen: PreTrainedModel, encoder: Encoder | None, seed: int) -> None:
    """Attaches the projector of an encoder, in place, unless the model has it already."""
    projector = projector_of(qwen)
    before = projector and projector.encoder
    if before is None and encoder is not None:
        torch.manual_seed(seed)  # the same projector in every process
        attach_projector(qwen, encoder)
    elif before != encoder:
        raise CtscribeError(
            "E_ENCODER",
            f"the starting weights must read features of the encoder that the recipe names, "
            f"{encoder or 'none'}, but they learned to read those of {before}",
        )


def _hard_pairs(
    training: PairDataset, recipe: Recipe, arguments: TrainingArguments, steps_done: int
) -> HardPairs | None:
    """The source of each epoch's hard negatives; None for other strategies."""
    if recipe.pairs.strategy != "hard":
        return None
    return HardPairs(
        training,
        recipe.pairs.seed,
        pairs_per_update(arguments),
        Path(arguments.output_dir) / "gaps",
        steps_done,
    )


def _require_sharing(training: PairDataset, recipe: Recipe, qwen: PreTrainedModel) -> None:
    """Checks that prompts can be shared, where the recipe asks for it.

    Raises:
        CtscribeError: ``E_RECIPE`` for a model that cannot, ``E_PAIRS`` where no partners are
            mutual.
    """
    if not recipe.pairs.shares_prompts:
        return
    require_full_attention(qwen)
    if not training.couples():
        raise CtscribeError(
            "E_PAIRS",
            "pairs.mutual needs partners that are each other's negative, but of "
            f"{len(training)} pairs none are; run pairs again",
        )


def _couples(
    training: PairDataset, recipe: Recipe, told: Callable[[str], None]
) -> list[tuple[int, int]]:
    """Numbers of pairs that must be in one batch because they share prompts."""
    if not recipe.pairs.shares_prompts:
        return []
    couples = training.couples()
    if launched()[0] == 0:
        told(
            f"Sharing: {2 * len(couples):,} of {len(training):,} pairs are learned beside their "
            "partner's, and both volumes go through the model once"
        )
    return couples


def make_scorer(
    qwen: PreTrainedModel,
    recipe: Recipe,
    tokens: int,
    told: Callable[[str], None] = lambda line: None,
) -> ReportScorer:
    """The trainable module: adapters (drawn with the recipe's seed), frozen parts, checkpointing.

    Where the tower is frozen, ``told`` is called with the memory estimate for ``tokens`` at once.
    """
    torch.manual_seed(recipe.train.seed)
    choose_trainable(qwen, recipe.model)
    way = _choose_checkpointing(qwen, recipe, tokens, told)
    if way != "none":
        enable_checkpointing(qwen, way)
    return ReportScorer(qwen, recipe.model.positions)


def _choose_checkpointing(
    qwen: PreTrainedModel,
    recipe: Recipe,
    tokens: int,
    told: Callable[[str], None],
) -> Checkpointing:
    """The recipe's activation checkpointing, or, for ``auto``, the fastest that fits in memory."""
    asked = recipe.train.gradient_checkpointing
    ways: dict[bool | str, Checkpointing] = {False: "none", "cheap": "cheap", True: "layers"}
    if sharding_asked() or not recipe.model.freeze_tower:
        # there is no estimate; a sharded model is assumed to be short of memory
        return ways.get(asked, "layers")
    memory = step_memory(qwen, recipe, tokens, launched()[1])
    way = ways.get(asked) or memory.first_that_fits()
    if launched()[0] == 0:
        told(memory.sentence(way))
    return way


def _trainer(
    arguments: TrainingArguments,
    scorer: ReportScorer,
    order: EpochsInOrder[Pair],
    pad_id: int,
    recipe: Recipe,
) -> PairTrainer:
    trainer = PairTrainer(
        objective=recipe.objective,
        rates=learning_rates(recipe.train),
        model=scorer,
        args=arguments,
        train_dataset=ErrorsAsItems(order),
        data_collator=partial(collate_or_error, pad_id=pad_id, sharing=recipe.pairs.shares_prompts),
    )
    require_sharding(trainer.accelerator, recipe.model.dtype)
    return trainer


def _validation(trainer: PairTrainer, pairs: PairDataset, pad_id: int) -> Callable[[], Validation]:
    accelerator = trainer.accelerator
    return partial(
        validate,
        trainer.model,
        pairs,
        pad_id=pad_id,
        batch_size=4 * trainer.args.per_device_train_batch_size,
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
        add_up=partial(accelerator.reduce, reduction="sum"),
    )


def _save_best(
    trainer: PairTrainer,
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    if trainer.accelerator.is_main_process or is_sharded(qwen):
        save_model(Path(trainer.args.output_dir) / "best", qwen, tokenizer)


def _run(trainer: PairTrainer, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except CtscribeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise CtscribeError(
                "E_MEMORY",
                "a step must fit into the device's memory, but "
                f"{', '.join(trainer.studies)} did not",
            ) from error
        if checkpoint is not None and not trainer.studies:  # it failed while being read
            raise damaged(checkpoint, brief(error)) from error
        raise


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device or the host ran out of memory."""
    # torch has an error type for a full GPU, but for a full host only a message
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return full or "DefaultCPUAllocator" in str(error)


def _finish(callback: RunCallback, num_steps: int) -> TrainResult:
    best_step, best_ce = callback.best
    result = TrainResult(best_ce, best_step, num_steps)
    if callback.log is not None:
        draw_loss_curve(callback.log.rows, callback.run_dir / "loss_curve.png")
        write_json(callback.run_dir / "result.json", asdict(result))
    callback.trainer.accelerator.wait_for_everyone()
    return result
