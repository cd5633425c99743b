"""From a recipe's knobs to the Trainer's, and what identifies a run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, TrainingArguments

from ctscribe.config import ObjectiveConfig, Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import sha256_of_file
from ctscribe.model.features import frames_of, store_features
from ctscribe.pairs.dataset import PairDataset, VisualSource, strategy_of
from ctscribe.rows import PairRow, StudyRow, read_rows
from ctscribe.train.hard import HardPairs
from ctscribe.train.rates import Part
from ctscribe.train.sharding import sharding_arguments, sharding_asked
from ctscribe.types import Strategy


def training_arguments(run_dir: Path, recipe: Recipe) -> TrainingArguments:
    """The Trainer's arguments; making them also joins the other processes, if any.

    Raises:
        CtscribeError: ``E_SHARDED`` as `sharding.sharding_arguments` does.
    """
    knobs, on_gpu = recipe.train, torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(run_dir),
        num_train_epochs=1,  # the data set holds all epochs, in their order
        train_sampling_strategy="sequential",
        per_device_train_batch_size=knobs.pairs_per_device,
        gradient_accumulation_steps=knobs.gradient_accumulation_steps,
        dataloader_drop_last=True,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        learning_rate=knobs.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=knobs.weight_decay,
        max_grad_norm=knobs.max_grad_norm,
        seed=knobs.seed,
        bf16=recipe.model.dtype == "bfloat16",
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        report_to=[],
        log_level="error",
        log_level_replica="error",
        **sharding_arguments(),
    )
    if arguments.n_gpu > 1:
        # Without torchrun the Trainer would split each batch's tensors, and so the pairs, over
        # the GPUs it sees.
        arguments._n_gpu = 1
    return arguments


def asked(
    recipe: Recipe, arguments: TrainingArguments, pairs_path: Path, start: Path | None
) -> dict[str, Any]:
    """What a run folder is identified by: the recipe, the pairs, the start, the update's size."""
    if not pairs_path.is_file():
        raise CtscribeError("E_MISSING", f"{pairs_path} must exist, as `ctscribe pairs` writes it")
    together = pairs_per_micro_step(arguments) * arguments.gradient_accumulation_steps
    return {
        "recipe": recipe.model_dump(mode="json"),
        "pairs_sha256": sha256_of_file(pairs_path),
        "start": None if start is None else _fingerprint(start),
        "pairs_per_update": together,
        # the checkpoints of a sharded run are read by sharded runs alone
        **({"sharded": True} if sharding_asked() else {}),
    }


def objective_of(recipe: Recipe) -> ObjectiveConfig:
    """The recipe's objective."""
    return recipe.objective


def hard_pairs(
    training: PairDataset, recipe: Recipe, arguments: TrainingArguments, step: int
) -> HardPairs | None:
    """Negatives that are drawn anew each epoch, continued after ``step`` updates; else None."""
    if recipe.pairs.strategy != "hard":
        return None
    return HardPairs(
        training,
        training.labels(),
        recipe.pairs.seed,
        pairs_per_micro_step(arguments) * int(arguments.gradient_accumulation_steps),
        Path(arguments.output_dir) / "gaps",
        step,
    )


def shown_volumes(rows: Sequence[PairRow]) -> set[str]:
    """Every volume that the rows may show in any epoch."""
    return {name for row in rows for name in (row.volume or row.study, *(row.alternatives or ()))}


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


def pairs_per_micro_step(arguments: TrainingArguments) -> int:
    """Pairs all processes together look at between two backward passes."""
    return int(arguments.per_device_train_batch_size * arguments.world_size)


def count_updates(num_items: int, arguments: TrainingArguments) -> int:
    """Updates in ``num_items`` pairs; an incomplete last micro-step is left out.

    Raises:
        CtscribeError: ``E_TOO_FEW`` when there is not one.
    """
    together = pairs_per_micro_step(arguments)
    if num_items < together:
        raise CtscribeError(
            "E_TOO_FEW",
            f"a training step takes {together} pairs, but there are {num_items}",
        )
    return -(-(num_items // together) // int(arguments.gradient_accumulation_steps))


def checkpoint_steps(num_steps: int, num_checkpoints: int) -> frozenset[int]:
    """Updates after which a checkpoint is due: evenly spaced, the last one included."""
    due = (round(num_steps * n / num_checkpoints) for n in range(1, num_checkpoints + 1))
    return frozenset(max(1, step) for step in due)


def learning_rates(recipe: Recipe) -> dict[Part, float]:
    """Peaks of the parts of the model."""
    knobs = recipe.train
    return {
        "language": knobs.learning_rate,
        "merger": knobs.merger_learning_rate or knobs.learning_rate,
        "tower": knobs.tower_learning_rate or knobs.learning_rate,
    }


def visual_source(
    qwen: Qwen2_5_VLForConditionalGeneration,
    prepared_dir: Path,
    studies: Sequence[StudyRow],
    pairs: Sequence[PairRow],
    recipe: Recipe,
) -> VisualSource:
    """Stored features while the tower is frozen, frames while it learns."""
    if not recipe.model.freeze_tower:
        return partial(frames_of, prepared_dir, windows=recipe.slices.windows)
    store = store_features(
        qwen,
        prepared_dir,
        studies,
        windows=recipe.slices.windows,
        noise=any(row.noise_seed is not None for row in pairs),
        merged=recipe.model.freeze_merger,
    )
    return store.visual


def _fingerprint(start: Path) -> str:
    """Hash of the starting weights, so that the folder may move; its name where it has none."""
    weights = sorted(start.glob("*.safetensors"))
    return "+".join(sha256_of_file(path)[:16] for path in weights) or start.name
