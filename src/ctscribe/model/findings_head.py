"""Where each finding is, token by token: a linear head on the tower's merged tokens."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ctscribe.reports.findings import FINDINGS

_MAX_POSITIVE_WEIGHT = 30.0


@final
class FindingsHead(nn.Module):
    """Log-odds of the 18 findings for each visual token, and pooled for each volume.

    A volume's log-odds are the log-sum-exp of its tokens' plus a bias per finding: one token that
    shows a nodule is enough, and the gradient goes to the tokens that show it.

    Args:
        hidden_size: Width of a visual token.
        num_tokens: Usual number of visual tokens of a volume, for the bias at the start.
    """

    def __init__(self, hidden_size: int, num_tokens: int = 80) -> None:
        super().__init__()
        self.tokens = nn.Linear(hidden_size, len(FINDINGS))
        nn.init.constant_(self.tokens.bias, -3.0)
        self.volume_bias = nn.Parameter(torch.zeros(len(FINDINGS)))
        nn.init.constant_(self.volume_bias, -float(torch.tensor(num_tokens).log()) + 2.0)

    def forward(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"], sizes: Sequence[int]
    ) -> tuple[Float[Tensor, "visual_tokens 18"], Float[Tensor, "volumes 18"]]:
        """Log-odds per token and per volume.

        Args:
            visual_tokens: Of all volumes, one after the other.
            sizes: Tokens of each volume.
        """
        logits: Tensor = self.tokens(visual_tokens)
        pooled = [part.logsumexp(0) for part in torch.split(logits, list(sizes))]
        return logits, torch.stack(pooled) + self.volume_bias


def where_loss(
    token_logits: Float[Tensor, "visual_tokens 18"],
    volume_logits: Float[Tensor, "volumes 18"],
    token_targets: Float[Tensor, "visual_tokens 18"],
    volume_targets: Float[Tensor, "volumes 18"],
    positive_weight: Float[Tensor, "18"],
) -> Float[Tensor, ""]:
    """Weighted binary cross entropy of the tokens plus that of the volumes, each a mean.

    Args:
        token_logits: From `FindingsHead`.
        volume_logits: From `FindingsHead`.
        token_targets: 1 where a lesion lies.
        volume_targets: 1 where a lesion lies in some slice shown.
        positive_weight: Weight of a positive token against a negative one, per finding.
    """
    tokens = bce(token_logits, token_targets, pos_weight=positive_weight, reduction="none")
    normaliser = 1 + (positive_weight - 1) * token_targets.mean(0)
    return (tokens.mean(0) / normaliser).mean() + bce(volume_logits, volume_targets)


def positive_weights(positives: Float[Tensor, "18"], total: int) -> Float[Tensor, "18"]:
    """Square root of negatives per positive, between 1 and 30: rare findings count, noise does not.

    Args:
        positives: Positive tokens of each finding.
        total: All tokens.
    """
    ratio = (total - positives) / positives.clamp(min=1)
    return ratio.sqrt().clamp(1, _MAX_POSITIVE_WEIGHT)
