"""Tensors of which each process holds a part, put together where they are written."""

from collections.abc import Mapping

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def is_sharded(module: nn.Module) -> bool:
    """Whether each process holds but a part of its weights."""
    return any(isinstance(weight, DTensor) for weight in module.parameters())


def is_first_process() -> bool:
    """Whether this process is the one that writes; true where there is no other."""
    return not dist.is_initialized() or dist.get_rank() == 0


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with their shards put together, one after the other, in the host's memory.

    All processes call it together. What is not sharded stays as and where it is.

    Returns:
        Of the first process all tensors, of the others those that are not sharded.
    """
    gathered = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            gathered[name] = tensor
            continue
        full = tensor.full_tensor()
        if is_first_process():
            gathered[name] = full.cpu()
    return gathered
