"""What happened since the last update, summed on the device."""

from typing import final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

_NAMES = (
    "positive_ce",
    "positives",
    "negative_ce",
    "finite_negatives",
    "capped",
    "negatives",
    "skipped",
    "branches",
)


@final
class Tally:
    """Sums over the studies of one update; no value leaves the device until it is read.

    Args:
        device: Where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = dict.fromkeys(_NAMES, torch.zeros((), dtype=torch.float64, device=device))

    def add_positive(self, ce: Float[Tensor, " studies"]) -> None:
        """Counts a micro-batch's positives."""
        self._add("positive_ce", ce.detach().double().sum())
        self._add("positives", len(ce))

    def add_negative(
        self, ce: Float[Tensor, " studies"], capped: Bool[Tensor, " studies"], *, skipped: bool
    ) -> None:
        """Counts a micro-batch's negatives; infinite ones count as capped, not in the mean."""
        finite = torch.isfinite(ce)
        self._add("negative_ce", torch.where(finite, ce, 0).detach().double().sum())
        self._add("finite_negatives", finite.sum())
        self._add("capped", capped.sum())
        self._add("negatives", len(ce))
        self._add("skipped", int(skipped))
        self._add("branches", 1)

    def take(self) -> Float64[Tensor, "sums"]:
        """The sums in a fixed order, ready to be added over processes; starts anew."""
        sums = torch.stack([self._sums[name] for name in _NAMES])
        self._sums = dict.fromkeys(_NAMES, torch.zeros_like(sums[0]))
        return sums

    def _add(self, name: str, value: Tensor | int) -> None:
        self._sums[name] = self._sums[name] + value


def means(sums: Float64[Tensor, "sums"]) -> dict[str, float | None]:
    """Means and shares of the sums `Tally.take` gives; None where nothing was counted."""
    by_name = dict(zip(_NAMES, sums.tolist(), strict=True))

    def share(of: str, among: str) -> float | None:
        return by_name[of] / by_name[among] if by_name[among] else None

    positive = share("positive_ce", "positives")
    negative = share("negative_ce", "finite_negatives")
    return {
        "positive_ce": positive,
        "negative_ce": negative,
        "gap": None if positive is None or negative is None else negative - positive,
        "share_capped": share("capped", "negatives"),
        "share_skipped": share("skipped", "branches"),
    }
