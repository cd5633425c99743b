"""The training objective: the mean over studies of α·CE⁺ + β·term(CE⁺, CE⁻).

CE⁺ and CE⁻ are cross entropies of the same report, in nats per token, given its own volume and a
wrong one. Here are the term, the tokens in its scope, and the condition under which a study is
satisfied and needs no gradient.

CE⁺ is detached in the term: otherwise the term could be lowered by raising CE⁺, which would spoil
the report ("likelihood displacement").
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from ctscribe.base.recipe import ObjectiveConfig


@final
@dataclass(frozen=True)
class PairLosses:
    """Cross entropy of each answer token given the right volume and given the wrong one.

    Both branches have the same reports, so their tokens correspond one to one.
    """

    positive: Float[Tensor, "tokens"]
    """Nats; detached."""
    negative: Float[Tensor, "tokens"]
    """Nats."""
    weights: Float[Tensor, "tokens"]
    """Weight of each token in the negative's term; 0 leaves it out."""
    rows: Int[Tensor, "tokens"]
    """Number of the study that each token belongs to."""
    num_studies: int

    def has_weight(self) -> Bool[Tensor, "studies"]:
        """Whether any token of a study has a weight above 0."""
        counted = torch.zeros(self.num_studies, dtype=torch.int64, device=self.rows.device)
        return counted.index_add(0, self.rows, (self.weights > 0).long()) > 0

    def mean(self, values: Float[Tensor, "tokens"]) -> Float[Tensor, "studies"]:
        """Weighted mean over each study's tokens; 0 where all weights are 0."""
        counts = self.weights > 0  # never 0 · ∞
        rows, weights = self.rows[counts], self.weights[counts]
        zeros = values.new_zeros(self.num_studies)
        total = zeros.index_add(0, rows, values[counts] * weights)
        weight = zeros.index_add(0, rows, weights)
        return total / torch.where(weight > 0, weight, 1.0)

    def gap(self) -> Float[Tensor, "studies_with_weight"]:
        """Weighted mean of CE⁻ − CE⁺ in nats, of each study that has a weight."""
        counted = self.has_weight()
        return (self.mean(self.negative.detach()) - self.mean(self.positive))[counted]


@final
@dataclass(frozen=True)
class Term:
    """The negative's part of the objective, without α and β, study by study.

    A study is satisfied when the slope of its term is 0, or negligible for a term whose slope only
    approaches 0. Its gradient is then exactly 0, so a batch of satisfied studies needs no backward
    pass. An infinite CE⁻ is satisfied. NaN is never satisfied and stays NaN.
    """

    values: Float[Tensor, "studies"]
    satisfied: Bool[Tensor, "studies"]


def pair_losses(
    objective: ObjectiveConfig,
    positive: Float[Tensor, "tokens"],
    negative: Float[Tensor, "tokens"],
    rows: Int[Tensor, "tokens"],
    num_studies: int,
    disputed: Bool[Tensor, "tokens"],
) -> PairLosses:
    """Both branches of a micro-batch, with the token weights of ``objective.scope``.

    In the scope ``weighted`` a token's weight is tanh(|CE⁻ − CE⁺| / 2·temperature), detached. So
    tokens that the volume does not change, such as grammar, count little.

    Args:
        objective: Gives scope and temperature.
        positive: CE⁺ of each token.
        negative: CE⁻ of the same tokens.
        rows: Number of each token's study.
        num_studies: Number of studies.
        disputed: Marks tokens in sentences on findings in which the two volumes differ (`Marks`).
    """
    positive = positive.detach()
    if objective.scope == "all":
        weights = torch.ones_like(positive)
    elif objective.scope == "disputed":
        weights = disputed.to(positive.dtype)
    else:
        change = (negative.detach() - positive).abs()
        weights = torch.tanh(change / (2 * objective.temperature))
    return PairLosses(positive, negative, weights, rows, num_studies)


def negative_term(objective: ObjectiveConfig, losses: PairLosses) -> Term:
    """The term of each study, from its weighted means; 0 and satisfied where all weights are 0."""
    positive_ce, negative_ce = losses.mean(losses.positive), losses.mean(losses.negative)
    if objective.name == "paper":
        term = paper(negative_ce, objective.max_loss)
    else:
        term = logistic(
            positive_ce, negative_ce, objective.margin, objective.scale, objective.negligible
        )
    left_out = ~losses.has_weight()
    return Term(torch.where(left_out, 0.0, term.values), term.satisfied | left_out)


def paper(negative_ce: Float[Tensor, "studies"], max_loss: float) -> Term:
    """The paper's term: −min(CE⁻, max_loss), in nats.

    It lies in [−max_loss, 0]. Its slope ∂/∂CE⁻ is −1 while CE⁻ < max_loss, then exactly 0. The
    gradient by the logit of a token is 1 − p, so it is largest where the word is already unlikely.

    Source: Eq. 4 with the bound described below it.
    """
    satisfied = negative_ce >= max_loss
    # `where`, because the gradient of `clamp` at an infinite CE⁻ would be NaN
    return Term(-torch.where(satisfied, max_loss, negative_ce), satisfied)


def logistic(
    positive_ce: Float[Tensor, "studies"],
    negative_ce: Float[Tensor, "studies"],
    margin: float,
    scale: float,
    negligible: float,
) -> Term:
    """A soft margin on CE⁻ − CE⁺: softplus(scale·(margin − (CE⁻ − CE⁺))) / scale.

    It lies in (0, ∞), above max(0, margin − (CE⁻ − CE⁺)) by at most log(2)/scale. Its slope ∂/∂CE⁻
    is −σ(scale·(margin − (CE⁻ − CE⁺))), in (−1, 0).

    Source: the image-conditional term of mDPO (Wang et al., arXiv:2406.11839) without a reference
    model and per token; α·CE⁺ is its anchor.

    At CE⁻ − CE⁺ = ``margin`` (nats) the slope is halved; ``scale`` (per nat) sets how abruptly. A
    study whose slope is at most ``negligible`` counts as satisfied.
    """
    gap = negative_ce - positive_ce.detach()
    satisfied = torch.sigmoid(scale * (margin - gap)) <= negligible
    # a satisfied gap may be infinite, so its softplus is computed without gradient
    finite = torch.where(satisfied, margin, gap)
    rest = softplus(scale * (margin - gap.detach())) / scale
    return Term(
        torch.where(satisfied, rest, softplus(scale * (margin - finite)) / scale), satisfied
    )
