"""What each objective asks of a negative: its term, and when there is nothing left to ask.

A term is what is added to α·CE⁺, weighted by β. Every function works element by element, so that
its elements may be studies (means over a report's tokens), single tokens, or one batch. CE⁺ and
CE⁻ are cross entropies of the same words, in nats, given the own and a wrong volume; CE⁺ is only
looked at here: no gradient reaches it, since a term that could be lowered by raising CE⁺ would
spoil the report ("likelihood displacement").

An element is satisfied when its term has no slope, or, where the slope only fades, when it has
fallen to a share `negligible` of its largest. A satisfied element carries exactly no gradient,
so a batch of them needs no backward pass. An infinite CE⁻ is satisfied; NaN never is, and stays.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

SMALLEST_CE = 1e-5
"""Nats below which `unlikelihood` is held: float32 cannot tell 1 − p from rounding there."""


@final
@dataclass(frozen=True)
class Term:
    """A term's elements."""

    values: Float[Tensor, "*elements"]
    satisfied: Bool[Tensor, "*elements"]
    """Those without gradient."""


def paper(negative_ce: Float[Tensor, "*elements"], max_loss: float) -> Term:
    """The paper's term: −min(CE⁻, max_loss).

    Bounds: [−max_loss, 0]. Slope: ∂/∂CE⁻ = −1 while CE⁻ < max_loss, then exactly 0. With respect
    to a token's own logits the push is 1 − p: strongest where the word is already unlikely.

    Source: Eq. 4 with the bound described below it.

    Args:
        negative_ce: Nats.
        max_loss: Cap in nats.
    """
    satisfied = negative_ce >= max_loss
    # `clamp` would multiply an infinite slope by zero and leave NaN; a selection does not.
    return Term(-torch.where(satisfied, max_loss, negative_ce), satisfied)


def hinge(
    positive_ce: Float[Tensor, "*elements"],
    negative_ce: Float[Tensor, "*elements"],
    margin: float,
) -> Term:
    """A wrong volume shall cost at least `margin` more: max(0, margin − (CE⁻ − CE⁺)).

    Bounds: [0, margin + CE⁺]. Slope: ∂/∂CE⁻ = −1 while CE⁻ − CE⁺ < margin, then exactly 0.

    Source: the ranking loss of Collobert and Weston (2008) on a report's two cross entropies.

    Args:
        positive_ce: Nats.
        negative_ce: Nats.
        margin: Nats.
    """
    gap = negative_ce - positive_ce.detach()
    satisfied = gap >= margin
    return Term(margin - torch.where(satisfied, margin, gap), satisfied)


def logistic(
    positive_ce: Float[Tensor, "*elements"],
    negative_ce: Float[Tensor, "*elements"],
    margin: float,
    scale: float,
    negligible: float,
) -> Term:
    """The hinge made smooth: softplus(scale·(margin − (CE⁻ − CE⁺))) / scale.

    −log of the chance that the own volume is told from the wrong one. Bounds: (0, ∞), above the
    hinge by at most log(2)/scale. Slope: ∂/∂CE⁻ = −σ(scale·(margin − (CE⁻ − CE⁺))), in (−1, 0).

    Source: the image-conditional term of mDPO (Wang et al., arXiv:2406.11839) without a reference
    model and per token; α·CE⁺ is its anchor.

    Args:
        positive_ce: Nats.
        negative_ce: Nats.
        margin: Nats of CE⁻ − CE⁺ at which the slope has halved.
        scale: Per nat; how abruptly it does.
        negligible: Slope at which an element counts as satisfied.
    """
    return _soft_hinge(negative_ce - positive_ce.detach(), margin, scale, negligible)


def simnpo(
    negative_ce: Float[Tensor, "*elements"], margin: float, scale: float, negligible: float
) -> Term:
    """The paper's cap made smooth: (2/scale)·softplus(−scale·(CE⁻ − margin)).

    Bounds: (0, ∞). Slope: ∂/∂CE⁻ = −2σ(scale·(margin − CE⁻)), in (−2, 0).

    Source: SimNPO (Fan et al., arXiv:2410.07163), with β = scale and γ = −scale·margin.

    Args:
        negative_ce: Nats.
        margin: Nats of CE⁻ at which the slope has halved.
        scale: Per nat; how abruptly it does.
        negligible: Share of the largest slope at which an element counts as satisfied.
    """
    soft = _soft_hinge(negative_ce, margin, scale, negligible)
    return Term(2 * soft.values, soft.satisfied)


def unlikelihood(negative_ce: Float[Tensor, "*elements"], negligible: float) -> Term:
    """The words shall be unlikely: −log(1 − p) with p = exp(−CE⁻).

    Bounds: [0, 11.5], because CE⁻ is held at `SMALLEST_CE`. Slope: ∂/∂CE⁻ = −p / (1 − p). With
    respect to a token's own logits the push is p: strongest where the word is still likely, the
    opposite of `paper`.

    Source: Welleck et al., arXiv:1908.04319, Eq. 4, with the report's words as the candidates.

    Args:
        negative_ce: Nats.
        negligible: p at which an element counts as satisfied.
    """
    satisfied = torch.exp(-negative_ce) <= negligible
    held = torch.where(satisfied, 1.0, negative_ce).clamp(min=SMALLEST_CE)
    rest = -torch.log1p(-torch.exp(-negative_ce.detach()))
    return Term(torch.where(satisfied, rest, -torch.log(-torch.expm1(-held))), satisfied)


def _soft_hinge(
    reached: Float[Tensor, "*elements"], margin: float, scale: float, negligible: float
) -> Term:
    satisfied = torch.sigmoid(scale * (margin - reached)) <= negligible
    # Where it is satisfied, possibly infinite, the slope is never asked for.
    finite = torch.where(satisfied, margin, reached)
    rest = softplus(scale * (margin - reached.detach())) / scale
    return Term(
        torch.where(satisfied, rest, softplus(scale * (margin - finite)) / scale), satisfied
    )
