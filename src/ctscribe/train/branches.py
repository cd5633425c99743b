"""What one branch's backward pass gives to the weights: how much, and to which of them."""

from functools import partial
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ctscribe.objectives.objective import Reach

Branch = Literal["positive", "negative"]
_VISION = ".visual."


@final
class Branches:
    """Hooks on every weight that learns, told which branch is at work.

    A hook sees the gradient of one backward pass before it is added to what is there, so each
    branch's norm is exact, costs one read of the gradients and keeps no copy. Where the
    negative's gradient must not reach a weight the hook answers with zeros. Of sharded weights the
    hooks see what the process's own micro-batch gives to the whole weight, before it is summed
    into the shards, so norms are the same as of unsharded ones.

    Args:
        model: Its weights' names tell the sides apart: the vision tower and its merger, ``visual``,
            and everything else.
        reach: Whose weights the negative may change.
    """

    def __init__(self, model: nn.Module, reach: Reach) -> None:
        self._at_work: Branch = "positive"
        self._squares: list[Tensor] = []
        self._reach = reach
        self._watched: set[Tensor] = set()
        for name, module in model.named_modules():
            gathers = isinstance(module, FSDPModule)
            if module is model or gathers:
                module.register_forward_pre_hook(partial(self._watch, name))

    def begin(self, branch: Branch) -> None:
        """From now on gradients are this branch's."""
        self._at_work = branch
        self._squares = []

    def square(self) -> Tensor | None:
        """Squared norm of the gradient since `begin`, over the weights it reaches."""
        return torch.stack(self._squares).sum() if self._squares else None

    def _watch(self, prefix: str, module: nn.Module, _: object) -> None:
        """Puts hooks on the weights that are whole now: a sharded one is while it is needed.

        FSDP gathers into the same tensor every time, so a hook stays.
        """
        for name, weight in module.named_parameters(prefix):
            is_whole = not isinstance(weight, DTensor)
            if weight.requires_grad and is_whole and weight not in self._watched:
                side = "vision" if _VISION in f".{name}" else "language"
                seen = partial(self._see, self._reach in ("all", side))
                weight.register_hook(seen)  # type: ignore[no-untyped-call]
                self._watched.add(weight)

    def _see(self, is_reached: bool, gradient: Tensor) -> Tensor | None:
        if self._at_work == "negative" and not is_reached:
            return torch.zeros_like(gradient)
        wide = torch.promote_types(gradient.dtype, torch.float32)
        self._squares.append(torch.linalg.vector_norm(gradient.detach(), dtype=wide) ** 2)
        return None
