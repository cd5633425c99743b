"""How the weight β of the negative moves during training."""

from dataclasses import dataclass
from typing import Literal, final

Schedule = Literal["constant", "warmup", "steered"]

_MEMORY = 0.9
_RATE = 0.05
_RANGE = 10.0


@final
@dataclass(frozen=True)
class Beta:
    """β for the next update, and what steering it remembers."""

    value: float
    mean_gap: float | None = None
    """Running mean of CE⁻ − CE⁺ in nats; None before the first update."""


def warmed_up(beta: float, step: int, num_warmup_steps: int) -> float:
    """β during the update after ``step`` others: rises in a line, then stays."""
    return beta * min(1.0, (step + 1) / max(1, num_warmup_steps))


def steered(beta: Beta, gap: float | None, target_gap: float, start: float) -> Beta:
    """β after an update whose pairs were ``gap`` apart: raised below the target, lowered above.

    log β changes by 5 % of the relative error of the gap's running mean (weight 0.9 on the past),
    at most 5 % an update, and β stays within a factor of ten of where it started. Equal gaps give
    equal β, so processes that share their sums stay together.

    Source: integral control of a Lagrange multiplier, as for the KL weight in Ziegler et al.,
    arXiv:1909.08593, section 2.2; it makes the paper's "dynamic weight" one.

    Args:
        beta: Of the update just made.
        gap: CE⁻ − CE⁺ over the tokens in scope, nats; None, where nothing was measured, keeps β.
        target_gap: Nats.
        start: β at the beginning.
    """
    if gap is None:
        return beta
    mean = gap if beta.mean_gap is None else _MEMORY * beta.mean_gap + (1 - _MEMORY) * gap
    error = min(1.0, max(-1.0, (target_gap - mean) / target_gap))
    value = beta.value * (1 + _RATE * error)
    return Beta(min(start * _RANGE, max(start / _RANGE, value)), mean)
