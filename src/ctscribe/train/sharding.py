"""Weights, gradients and moments split over the processes: FSDP2 through accelerate.

The launcher asks for it (``accelerate launch --use_fsdp --fsdp_version 2``), because it is how a
run is spread over a machine, not what is learned: losses and weights are those of one process.
"""

import os
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import MixedPrecisionPolicy

from ctscribe.errors import CtscribeError

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
