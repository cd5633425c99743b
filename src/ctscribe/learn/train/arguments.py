"""The Trainer's arguments from a recipe and the launcher's settings, and counts of updates."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments
from transformers.utils import is_bitsandbytes_available

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe

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
"""Settings of accelerate's launcher, by environment variable, that are not supported."""


_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
}
"""The Trainer's names."""


def training_arguments(run_dir: Path, recipe: Recipe) -> TrainingArguments:
    """The Trainer's arguments. Creating them also joins the process group, if there is one.

    Raises:
        CtscribeError: ``E_SHARDED`` where the launcher asks for something that is not supported,
            ``E_OPTIMIZER`` where the recipe's optimiser cannot run here.
    """
    knobs, on_gpu = recipe.train, torch.cuda.is_available()
    _require_optimizer(knobs.optimizer)
    arguments = TrainingArguments(
        output_dir=str(run_dir),
        num_train_epochs=1,  # the data set holds all epochs, in their order
        train_sampling_strategy="sequential",
        per_device_train_batch_size=knobs.pairs_per_device,
        gradient_accumulation_steps=knobs.gradient_accumulation_steps,
        dataloader_drop_last=True,
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=knobs.data_workers,
        dataloader_prefetch_factor=knobs.prefetch if knobs.data_workers else None,
        remove_unused_columns=False,
        optim=_OPTIMIZERS[knobs.optimizer],
        learning_rate=knobs.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=knobs.weight_decay,
        max_grad_norm=knobs.max_grad_norm,
        seed=knobs.seed,
        bf16=recipe.model.dtype == "bfloat16",
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        ddp_timeout=60 * knobs.time_out_minutes,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        report_to=[],
        log_level="error",
        log_level_replica="error",
        **_sharding_arguments(),
    )
    if arguments.n_gpu > 1:
        # without torchrun the Trainer would wrap the model in DataParallel, which tears pairs apart
        arguments._n_gpu = 1
    return arguments


def _require_optimizer(optimizer: Literal["adamw", "adamw_8bit", "adafactor"]) -> None:
    if sharding_asked() and optimizer != "adamw":
        raise CtscribeError(
            "E_SHARDED",
            f"weights are sharded with train.optimizer adamw alone, but it is {optimizer}",
        )
    if optimizer != "adamw_8bit":
        return
    for there, what in (
        (is_bitsandbytes_available(), "bitsandbytes"),
        (torch.cuda.is_available(), "a CUDA GPU"),
    ):
        if not there:
            raise CtscribeError(
                "E_OPTIMIZER", f"train.optimizer adamw_8bit needs {what}, but there is none"
            )


def pairs_per_micro_step(arguments: TrainingArguments) -> int:
    """Pairs of one micro-batch, of all processes together."""
    return int(arguments.per_device_train_batch_size * arguments.world_size)


def pairs_per_update(arguments: TrainingArguments) -> int:
    """Pairs of one update, of all processes together."""
    return pairs_per_micro_step(arguments) * int(arguments.gradient_accumulation_steps)


def count_updates(num_items: int, arguments: TrainingArguments) -> int:
    """Updates in ``num_items`` pairs; an incomplete last micro-step is left out.

    Raises:
        CtscribeError: ``E_TOO_FEW`` when there is not one.
    """
    together = pairs_per_micro_step(arguments)
    if num_items < together:
        raise CtscribeError(
            "E_TOO_FEW", f"a training step takes {together} pairs, but there are {num_items}"
        )
    return -(-(num_items // together) // int(arguments.gradient_accumulation_steps))


def checkpoint_steps(num_steps: int, num_checkpoints: int) -> frozenset[int]:
    """Updates after which a checkpoint is due: evenly spaced, the last one included."""
    due = (round(num_steps * n / num_checkpoints) for n in range(1, num_checkpoints + 1))
    return frozenset(max(1, step) for step in due)


def sharding_asked() -> bool:
    """Whether the launcher asks for FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _sharding_arguments() -> dict[str, Any]:
    """The Trainer's arguments for FSDP2; none where the launcher does not ask for it.

    Each decoder layer and each block of the tower is gathered for its computation and freed after
    it. Gradients are reduced into shards after every backward pass: kept whole until the update
    they would take as much memory as unsharded weights.

    Raises:
        CtscribeError: ``E_SHARDED`` where the launcher asks for something that is not supported.
    """
    if not sharding_asked():
        return {}
    for (variable, value), what in _REFUSED.items():
        if os.environ.get(variable, "").lower() == value:
            raise CtscribeError(
                "E_SHARDED", f"weights are sharded by FSDP2 alone, but the launcher asks for {what}"
            )
    if not _shards_here():
        raise _whole_models()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise CtscribeError(
            "E_SHARDED", "weights are sharded over two processes or more, but there is one"
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


def _shards_here() -> bool:
    # without GPUs accelerate silently holds the whole model in every process
    return torch.cuda.is_available()


def require_sharding(accelerator: Accelerator, dtype: Literal["float32", "bfloat16"]) -> None:
    """Checks that accelerate really shards where the launcher asks for it, and sets its dtypes.

    Must be called before the model is prepared. Shards and the reduction of gradients are in
    float32; gathered weights have the activations' dtype. Inputs are not cast, because positions
    in mm are among them.

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


def _whole_models() -> CtscribeError:
    return CtscribeError(
        "E_SHARDED",
        "weights are sharded on CUDA GPUs only, where accelerate does it, but the launcher asks "
        "for FSDP elsewhere",
    )
