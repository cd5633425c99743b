"""Learning rates of their own for the vision tower and its merger."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

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
