"""What an update measures of itself: sums of both branches, and the norms of their gradients."""

import math
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

Branch = Literal["positive", "negative"]
_MEANS = (
    *("positive_ce", "positive_finding_ce", "positive_boilerplate_ce", "positive_square"),
    *("negative_ce", "negative_finding_ce", "negative_boilerplate_ce", "negative_square"),
    *("scope_gap", "share_capped", "share_skipped"),
)


@final
class Tally:
    """Sums and counts over one update; no value leaves the device until it is read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = self._nothing()

    def add_branch(
        self,
        branch: Branch,
        token_ce: Float[Tensor, "tokens"],
        study_ce: Float[Tensor, "studies"],
        finding: Bool[Tensor, "tokens"],
        square: Float[Tensor, ""],
    ) -> None:
        """Counts one branch of a micro-batch; infinite cross entropies are not in the means.

        Cross entropies are nats, of tokens and per token; ``finding`` marks tokens in sentences
        that state a finding; ``square`` is the squared norm of the branch's gradient.
        """
        self._add(f"{branch}_ce", study_ce)
        self._add(f"{branch}_finding_ce", token_ce[finding])
        self._add(f"{branch}_boilerplate_ce", token_ce[~finding])
        self._add(f"{branch}_square", square)

    def add_pair(
        self,
        gap: Float[Tensor, "studies_in_scope"],
        satisfied: Bool[Tensor, "studies"],
        *,
        skipped: bool,
    ) -> None:
        """Counts how a micro-batch's negatives compare with its positives."""
        self._add("scope_gap", gap)
        self._add("share_capped", satisfied.double())
        self._add("share_skipped", torch.tensor(float(skipped), device=self._device))

    def take(self) -> Float64[Tensor, "2 means"]:
        """Sums and counts in a fixed order, ready to be added over processes; starts anew."""
        sums, self._sums = self._sums, self._nothing()
        return sums

    def _nothing(self) -> Float64[Tensor, "2 means"]:
        return torch.zeros(2, len(_MEANS), dtype=torch.float64, device=self._device)

    def _add(self, name: str, values: Float[Tensor, "*values"]) -> None:
        finite = torch.isfinite(values)
        self._sums[0, _MEANS.index(name)] += torch.where(finite, values, 0).detach().double().sum()
        self._sums[1, _MEANS.index(name)] += finite.sum()


def means(sums: Float64[Tensor, "2 means"]) -> dict[str, float | None]:
    """Means of what `Tally.take` gives; None where nothing was counted.

    A branch's gradient norm is the root mean square over micro-batches.
    """
    found = {
        name: total / count if count else None
        for name, total, count in zip(_MEANS, *sums.tolist(), strict=True)
    }
    positive, negative = found["positive_ce"], found["negative_ce"]
    found["gap"] = None if positive is None or negative is None else negative - positive
    for branch in ("positive", "negative"):
        square = found.pop(f"{branch}_square")
        found[f"{branch}_grad_norm"] = None if square is None else math.sqrt(square)
    return found


@final
class GradientNorm:
    """Hooks on every weight that learns, which measure the gradient of one backward pass.

    A hook sees that gradient before it is added to what is there, so each branch's norm is exact,
    costs one read of the gradients and keeps no copy. Of sharded weights the hooks see what the
    process's own micro-batch gives to the whole weight, before it is summed into the shards, so
    norms are the same as of unsharded ones. The model's forward passes put the hooks in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self._squares: list[Tensor] = []
        self._watched: set[Tensor] = set()
        for module in model.modules():
            if module is model or isinstance(module, FSDPModule):
                module.register_forward_pre_hook(self._watch)

    def restart(self) -> None:
        """Forgets what has been measured."""
        self._squares = []

    def square(self) -> Float[Tensor, ""]:
        """Squared norm of the gradient since `restart`."""
        return torch.stack(self._squares).sum()

    def _watch(self, module: nn.Module, _: object) -> None:
        """Puts hooks on the weights that are whole now: a sharded one is while it is needed.

        FSDP gathers into the same tensor every time, so a hook stays.
        """
        for weight in module.parameters():
            is_whole = not isinstance(weight, DTensor)
            if weight.requires_grad and is_whole and weight not in self._watched:
                weight.register_hook(self._measure)  # type: ignore[no-untyped-call]
                self._watched.add(weight)

    def _measure(self, gradient: Tensor) -> None:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        self._squares.append(torch.linalg.vector_norm(gradient.detach(), dtype=wide) ** 2)
