"""Training objectives: pure functions of per-sample cross entropies.

Each row of the inputs is one study: the mean cross entropy, in nats per answer token, of its
report given its own volume (positive) and given another one (negative).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def paper(
    positive_ce: Float[Tensor, " studies"],
    negative_ce: Float[Tensor, " studies"],
    beta: float,
    max_loss: float,
    alpha: float = 1.0,
) -> Float[Tensor, ""]:
    """The paper's objective, averaged over studies.

    L = mean_i [ α·CE⁺ᵢ − β·min(CE⁻ᵢ, max_loss) ]

    Bounds: L ≥ −β·max_loss. Gradient with n studies: ∂L/∂CE⁺ᵢ = α/n; ∂L/∂CE⁻ᵢ = −β/n while
    CE⁻ᵢ < max_loss and exactly 0 from there on, also for an infinite CE⁻ᵢ. NaN stays NaN.

    Source: Eq. 4 with the bound described below it; the cap acts on each study's mean.

    Args:
        positive_ce: Nats per answer token.
        negative_ce: Nats per answer token.
        beta: Weight of the negative.
        max_loss: Cap in nats per token.
        alpha: Weight of the positive.
    """
    return alpha * positive_ce.mean() + paper_negative(negative_ce, beta, max_loss)


def paper_negative(
    negative_ce: Float[Tensor, " studies"], beta: float, max_loss: float
) -> Float[Tensor, ""]:
    """The negative's term of `paper` alone: −β·mean_i min(CE⁻ᵢ, max_loss).

    A sum of terms can be differentiated term by term, so that the two branches of a pair need
    not be held in memory together.
    """
    # `clamp` would multiply an infinite slope by zero and leave NaN; a selection does not.
    capped = torch.where(negative_ce >= max_loss, max_loss, negative_ce)
    return -beta * capped.mean()


def is_capped(negative_ce: Float[Tensor, " studies"], max_loss: float) -> Bool[Tensor, " studies"]:
    """Which studies' negatives have reached the cap and carry no gradient; NaN is not capped."""
    return negative_ce >= max_loss
