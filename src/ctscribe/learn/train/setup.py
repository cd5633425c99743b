"""From a recipe's knobs to the Trainer's, and what identifies a run."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.optim import Optimizer
from transformers import Qwen2_5_VLForConditionalGeneration, TrainingArguments

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_file
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import PairRow, StudyRow, read_rows
from ctscribe.base.types import Strategy
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.features import frames_of, store_features
from ctscribe.learn.pairs.dataset import PairDataset, VisualSource, strategy_of
from ctscribe.learn.train.epochs import HardPairs

Part = Literal["tower", "merger", "language"]


def part_of(name: str) -> Part:
    """Which part of the model a weight belongs to, by its name in the model."""
    dotted = f".{name}"
    if ".visual.merger." in dotted:
        return "merger"
    return "tower" if ".visual." in dotted else "language"


def set_rates(optimizer: Optimizer, model: nn.Module, rates: Mapping[Part, float]) -> None:
    """Splits the optimizer's groups so that each part has its rate; before the first update.

    Args:
        optimizer: Its groups keep their other settings and their order.
        model: Whose weights it holds.
        rates: Of each part; the language model's comes first in every group, and is what is
            logged.
    """
    parts = {id(weight): part_of(name) for name, weight in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for part in ("language", "merger", "tower"):
            weights = [weight for weight in group["params"] if parts[id(weight)] == part]
            if weights:
                groups.append({**group, "params": weights, "lr": rates[part]})
    optimizer.param_groups[:] = groups


_ASKED = "ACCELERATE_USE_FSDP"
_REFUSED = {
    ("FSDP_VERSION", "1"): "FSDP1, whose flat weights have no names (--fsdp_version)",
    ("FSDP_OFFLOAD_PARAMS", "true"): "weights on the host (--fsdp_offload_params)",
    ("FSDP_ACTIVATION_CHECKPOINTING", "true"): (
        "checkpointing of its own (--fsdp_activation_checkpointing) instead of "
        "train.gradient_checkpointing"
    ),
    ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"): (
        "further kinds of parallelism (--use_parallelism_config)"
    ),
}
"""What a launcher may ask for beside FSDP and does not get, as accelerate's variables say it."""


def sharding_asked() -> bool:
    """Whether the launcher asks for FSDP."""
    return os.environ.get(_ASKED, "false").lower() == "true"


def sharding_arguments() -> dict[str, Any]:
    """The Trainer's arguments for a run whose weights are sharded; none where nobody asks.

    Each decoder layer and each block of the tower is gathered when it computes and given back
    after it. Gradients are summed into their shards after every backward pass: kept whole until
    the update they would take as much memory as unsharded weights.

    Raises:
        CtscribeError: ``E_SHARDED`` where the launcher asks for something that is not supported.
    """
    if not sharding_asked():
        return {}
    for (variable, value), what in _REFUSED.items():
        if os.environ.get(variable, "").lower() == value:
            raise CtscribeError(
                "E_SHARDED",
                f"weights are sharded by FSDP2 alone, but the launcher asks for {what}",
            )
    if not _shards_here():
        raise _whole_models()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise CtscribeError(
            "E_SHARDED",
            "weights are sharded over two processes or more, but there is one",
        )
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "SHARDED_STATE_DICT",
            "reshard_after_forward": True,
            "cpu_ram_efficient_loading": False,
            "activation_checkpointing": False,
        },
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def require_sharding(accelerator: Accelerator, dtype: Literal["float32", "bfloat16"]) -> None:
    """Sees to it that a launcher's wish for FSDP is granted, before the model is prepared.

    Shards stay in float32; what is gathered for a layer's work has the activations' type, and
    gradients are summed over the processes in float32. Inputs keep their type: positions in mm
    are among them.

    Raises:
        CtscribeError: ``E_SHARDED`` where accelerate would hold the whole model in each process
            after all.
    """
    if not sharding_asked():
        return
    if not accelerator.is_fsdp2:
        raise _whole_models()
    if dtype == "bfloat16":
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )


def _shards_here() -> bool:
    # without GPUs accelerate holds whole models in all processes and says nothing
    return torch.cuda.is_available()


def _whole_models() -> CtscribeError:
    return CtscribeError(
        "E_SHARDED",
        "weights are sharded on CUDA GPUs only, where accelerate does it, but the launcher asks "
        "for FSDP elsewhere",
    )


def training_arguments(run_dir: Path, recipe: Recipe) -> TrainingArguments:
    """The Trainer's arguments; making them also joins the other processes, if any.

    Raises:
        CtscribeError: ``E_SHARDED`` as `sharding_arguments` does.
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
    recipe: Recipe, arguments: TrainingArguments, pairs_path: Path, start: str | Path | None
) -> dict[str, Any]:
    """What a run folder is identified by: the recipe, the pairs, the start, the update's size."""
    if not pairs_path.is_file():
        raise CtscribeError("E_MISSING", f"{pairs_path} must exist, as `ctscribe pairs` writes it")
    together = pairs_per_micro_step(arguments) * arguments.gradient_accumulation_steps
    return {
        "recipe": recipe.model_dump(mode="json"),
        "pairs_sha256": sha256_of_file(pairs_path),
        "start": None if start is None else _fingerprint(Path(start)),
        "pairs_per_update": together,
        # the checkpoints of a sharded run are read by sharded runs alone
        **({"sharded": True} if sharding_asked() else {}),
    }


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
    prepared: Prepared,
    studies: Sequence[StudyRow],
    pairs: Sequence[PairRow],
    recipe: Recipe,
) -> VisualSource:
    """Stored features while the tower is frozen, frames while it learns."""
    if not recipe.model.freeze_tower:
        return partial(frames_of, prepared)
    store = store_features(
        qwen,
        prepared,
        studies,
        noise=any(row.noise_seed is not None for row in pairs),
        merged=recipe.model.freeze_merger,
    )
    return store.visual


def _fingerprint(start: Path) -> str:
    """Hash of the starting weights, so that the folder may move; its name where it has none."""
    weights = sorted(start.glob("*.safetensors"))
    return "+".join(sha256_of_file(path)[:16] for path in weights) or start.name
