"""What a negative asks of the model: which tokens count, the term, and when nothing is left to ask.

The objective is the mean over studies of α·CE⁺ + β·term(CE⁺, CE⁻). CE⁺ and CE⁻ are cross entropies
of the same words, in nats, given the own and a wrong volume. CE⁺ is only looked at by the term: no
gradient reaches it, since a term that could be lowered by raising CE⁺ would spoil the report
("likelihood displacement").
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


@final
@dataclass(frozen=True)
class Term:
    """The negative's part of the objective, without α and β, study by study.

    A study is satisfied when its term has no slope, or, where the slope only fades, when it has
    fallen to a negligible share of its largest. It then carries exactly no gradient, so a batch of
    satisfied studies needs no backward pass. An infinite CE⁻ is satisfied; NaN never is, and stays.
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
    """Both branches of a micro-batch, with what each token counts in ``objective.scope``.

    The scope ``weighted`` weighs a token by tanh(|CE⁻ − CE⁺| / 2·temperature), a constant to the
    gradient: what the volume does not change, such as grammar, counts little.

    ``positive`` and ``negative`` are CE⁺ and CE⁻ of the same tokens, ``rows`` the study of each;
    ``disputed`` marks those in sentences on findings in which the two volumes differ (see `Marks`).
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
    """The term of each study's means over the tokens that count; none where no token does."""
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

    Bounds: [−max_loss, 0]. Slope: ∂/∂CE⁻ = −1 while CE⁻ < max_loss, then exactly 0. With respect
    to a token's own logits the push is 1 − p: strongest where the word is already unlikely.

    Source: Eq. 4 with the bound described below it.
    """
    satisfied = negative_ce >= max_loss
    # `clamp` would multiply an infinite slope by zero and leave NaN; a selection does not.
    return Term(-torch.where(satisfied, max_loss, negative_ce), satisfied)


def logistic(
    positive_ce: Float[Tensor, "studies"],
    negative_ce: Float[Tensor, "studies"],
    margin: float,
    scale: float,
    negligible: float,
) -> Term:
    """A wrong volume shall cost `margin` more: softplus(scale·(margin − (CE⁻ − CE⁺))) / scale.

    −log of the chance that the own volume is told from the wrong one. Bounds: (0, ∞), above
    max(0, margin − (CE⁻ − CE⁺)) by at most log(2)/scale. Slope:
    ∂/∂CE⁻ = −σ(scale·(margin − (CE⁻ − CE⁺))), in (−1, 0).

    Source: the image-conditional term of mDPO (Wang et al., arXiv:2406.11839) without a reference
    model and per token; α·CE⁺ is its anchor.

    At ``margin`` nats of CE⁻ − CE⁺ the slope has halved, as abruptly as ``scale`` (per nat) says;
    below ``negligible`` a study counts as satisfied.
    """
    gap = negative_ce - positive_ce.detach()
    satisfied = torch.sigmoid(scale * (margin - gap)) <= negligible
    # Where it is satisfied, possibly infinite, the slope is never asked for.
    finite = torch.where(satisfied, margin, gap)
    rest = softplus(scale * (margin - gap.detach())) / scale
    return Term(
        torch.where(satisfied, rest, softplus(scale * (margin - finite)) / scale), satisfied
    )
