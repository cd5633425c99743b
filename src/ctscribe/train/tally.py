"""What happened since the last update, summed on the device."""

import math
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

Branch = Literal["positive", "negative"]
_MEANS = (
    *("positive_ce", "positive_finding_ce", "positive_boilerplate_ce", "positive_square"),
    *("negative_ce", "negative_finding_ce", "negative_boilerplate_ce", "negative_square"),
    *("scope_gap", "share_capped", "share_skipped"),
)


@final
class Tally:
    """Sums and counts over one update; no value leaves the device until it is read.

    Args:
        device: Where the losses are.
    """

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

        Args:
            branch: Which.
            token_ce: Nats.
            study_ce: Nats per token.
            finding: Tokens in sentences that state a finding.
            square: Squared norm of its gradient.
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
        """Counts what a micro-batch's negatives had to say."""
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
