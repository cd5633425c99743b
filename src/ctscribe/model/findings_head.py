"""Where each finding is, cell by cell: a linear head on the tower's merged tokens."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ctscribe.reports.findings import FINDINGS

_MAX_POSITIVE_WEIGHT = 1000.0


CELLS_PER_SIDE = 4
"""A visual token tells where in its 28 × 28 px a finding is, in cells of 7 × 7 px."""


@final
class FindingsHead(nn.Module):
    """Log-odds of the 18 findings for each cell of each visual token, and for each volume.

    A volume's log-odds are the log-sum-exp of its cells' plus a bias per finding: one cell that
    shows a nodule is enough, and the gradient goes to the cells that show it.

    Args:
        hidden_size: Width of a visual token.
        num_tokens: Usual number of visual tokens of a volume, for the bias at the start.
    """

    def __init__(self, hidden_size: int, num_tokens: int = 80) -> None:
        super().__init__()
        self.cells = nn.Linear(hidden_size, CELLS_PER_SIDE**2 * len(FINDINGS))
        nn.init.constant_(self.cells.bias, -3.0)
        self.volume_bias = nn.Parameter(torch.zeros(len(FINDINGS)))
        num_cells = num_tokens * CELLS_PER_SIDE**2
        nn.init.constant_(self.volume_bias, 2.0 - math.log(num_cells))

    def ask(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"]
    ) -> Float[Tensor, "visual_tokens cells 18"]:
        """Log-odds per cell alone."""
        logits: Tensor = self.cells(visual_tokens)
        return logits.reshape(len(visual_tokens), CELLS_PER_SIDE**2, len(FINDINGS))

    def forward(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"], sizes: Sequence[int]
    ) -> tuple[Float[Tensor, "visual_tokens cells 18"], Float[Tensor, "volumes 18"]]:
        """Log-odds per cell, row by row inside its token, and per volume.

        Args:
            visual_tokens: Of all volumes, one after the other.
            sizes: Tokens of each volume.
        """
        logits = self.ask(visual_tokens)
        pooled = [part.flatten(0, 1).logsumexp(0) for part in torch.split(logits, list(sizes))]
        return logits, torch.stack(pooled) + self.volume_bias


def where_loss(
    cell_logits: Float[Tensor, "visual_tokens cells 18"],
    volume_logits: Float[Tensor, "volumes 18"],
    cell_targets: Float[Tensor, "visual_tokens cells 18"],
    volume_targets: Float[Tensor, "volumes 18"],
    positive_weight: Float[Tensor, "18"],
    known: Bool[Tensor, "visual_tokens 18"] | None = None,
) -> Float[Tensor, ""]:
    """Weighted binary cross entropy of the cells plus that of the volumes, each a mean.

    Args:
        cell_logits: From `FindingsHead`.
        volume_logits: From `FindingsHead`.
        cell_targets: 1 where a lesion lies.
        volume_targets: 1 where a lesion lies in some slice shown.
        positive_weight: Weight of a positive cell against a negative one, per finding.
        known: Of which findings a token's cells are known; None where all are.
    """
    cells = bce(cell_logits, cell_targets, pos_weight=positive_weight, reduction="none").mean(1)
    positive = cell_targets.mean(1)
    if known is None:
        cells, positive = cells.mean(0), positive.mean(0)
    else:
        share = known.float().mean(0).clamp(min=1 / len(known))
        cells, positive = ((each * known).mean(0) / share for each in (cells, positive))
    normaliser = 1 + (positive_weight - 1) * positive
    return (cells / normaliser).mean() + bce(volume_logits, volume_targets)


def attention_loss(
    cell_logits: Float[Tensor, "visual_tokens cells 18"],
    cell_targets: Float[Tensor, "visual_tokens cells 18"],
    sizes: Sequence[int],
) -> Float[Tensor, ""]:
    """−log of the attention that falls on lesions, mean over findings with a lesion shown.

    Args:
        cell_logits: From `FindingsHead`; their softmax over a volume is a finding's attention.
        cell_targets: 1 where a lesion lies.
        sizes: Tokens of each volume.
    """
    losses = []
    parts = (torch.split(each, list(sizes)) for each in (cell_logits, cell_targets))
    for logits, targets in zip(*parts, strict=True):
        shown = targets.amax((0, 1)) > 0
        on_lesions = logits.masked_fill(targets == 0, -math.inf)[..., shown]
        losses.append(logits[..., shown].logsumexp((0, 1)) - on_lesions.logsumexp((0, 1)))
    found = torch.cat(losses)
    return found.mean() if len(found) else cell_logits.sum() * 0


def positive_weights(
    positives: Float[Tensor, "18"], total: Float[Tensor, "18"]
) -> Float[Tensor, "18"]:
    """Negatives per positive, between 1 and 1000: both kinds of cells weigh the same in all.

    A small lesion covers one cell in thousands, and would hardly teach with less.

    Args:
        positives: Positive cells of each finding.
        total: All cells of which it is known whether they show the finding.
    """
    ratio = (total - positives) / positives.clamp(min=1)
    return ratio.clamp(1, _MAX_POSITIVE_WEIGHT)
