"""The cross entropies of both branches, token by token, and their means per study."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scope = Literal["all", "disputed", "weighted"]


@final
@dataclass(frozen=True)
class PairLosses:
    """The answer's tokens of several studies, given the right volumes and wrong ones.

    Both branches answer with the same report, so token by token they belong together.
    """

    positive: Float[Tensor, "tokens"]
    """Nats; carries no gradient."""
    negative: Float[Tensor, "tokens"]
    """Nats."""
    weights: Float[Tensor, "tokens"]
    """What each token counts in the negative's term; 0 leaves it out."""
    rows: Int[Tensor, "tokens"]
    """The study each token belongs to."""
    num_studies: int

    def has_weight(self) -> Bool[Tensor, "studies"]:
        """Studies with a token that counts."""
        counted = torch.zeros(self.num_studies, dtype=torch.int64, device=self.rows.device)
        return counted.index_add(0, self.rows, (self.weights > 0).long()) > 0

    def mean(self, values: Float[Tensor, "tokens"]) -> Float[Tensor, "studies"]:
        """Weighted mean over each study's tokens; 0 where none counts."""
        counts = self.weights > 0  # never 0 · ∞
        rows, weights = self.rows[counts], self.weights[counts]
        zeros = values.new_zeros(self.num_studies)
        total = zeros.index_add(0, rows, values[counts] * weights)
        weight = zeros.index_add(0, rows, weights)
        return total / torch.where(weight > 0, weight, 1.0)

    def gap(self) -> Float[Tensor, "studies_with_weight"]:
        """CE⁻ − CE⁺ over the tokens that count, in nats, of each study that has one."""
        counted = self.has_weight()
        return (self.mean(self.negative.detach()) - self.mean(self.positive))[counted]


def token_weights(
    scope: Scope,
    positive: Float[Tensor, "tokens"],
    negative: Float[Tensor, "tokens"],
    disputed: Bool[Tensor, "tokens"],
    temperature: float,
) -> Float[Tensor, "tokens"]:
    """What each token counts in the negative's term.

    Args:
        scope: all: 1. disputed: 1 in sentences on findings in which the two volumes differ, else
            0. weighted: tanh(|CE⁻ − CE⁺| / 2·temperature), a constant to the gradient: what the
            volume does not change, such as grammar, counts little.
        positive: Nats.
        negative: Nats.
        disputed: Marks of `pairs.dataset.Marks`.
        temperature: Nats; a difference of twice as much counts 0.76.
    """
    if scope == "all":
        return torch.ones_like(positive)
    if scope == "disputed":
        return disputed.to(positive.dtype)
    return torch.tanh((negative - positive).detach().abs() / (2 * temperature))
