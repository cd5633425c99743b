"""Targets and losses for localising findings: which cell of a visual token shows which finding."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from transformers import PreTrainedModel

from ctscribe.learn.model.families import backbone_of
from ctscribe.scan.boxes import FrameBoxes, FrameReach, touches
from ctscribe.text.findings import FINDINGS

CELLS_PER_SIDE = 4
"""A visual token is a grid of 4 × 4 cells, in which findings are located: 7 × 7 px of 28 × 28."""
_SHARE_OF_CELL, _SHARE_OF_BOX = 0.25, 0.3
"""Of which a cell and a lesion's box must share one; see `cell_targets`."""
_MAX_POSITIVE_WEIGHT = 1000.0


def cell_px(qwen: PreTrainedModel) -> int:
    """Side of a cell in pixels."""
    return backbone_of(qwen).token_px // CELLS_PER_SIDE


def cell_targets(
    boxes: FrameBoxes,
    findings: Sequence[int],
    reach: FrameReach,
    frame_size_px: tuple[int, int],
    shift_px: tuple[int, int] = (0, 0),
    *,
    side_px: int,
) -> Float32[np.ndarray, "visual_tokens cells 18"]:
    """1 where a cell of a visual token shows a lesion.

    That is so when the lesion's box covers a quarter of the cell, or when the cell holds 30 % of
    the box's section. The first rule leaves out cells at a box's corner, where there is usually no
    lesion; the second keeps nodules that are smaller than a cell.

    Args:
        boxes: From `boxes_in_frames`.
        findings: Index into `FINDINGS` of each box.
        reach: Depth range of each frame, from `reach_of_frames`.
        frame_size_px: (height, width).
        shift_px: By how much the frames were shifted (down, right).
        side_px: Side of a cell, see `cell_px`.
    """
    rows, columns = (side // side_px for side in frame_size_px)
    targets = np.zeros((len(reach) // 2, rows, columns, len(FINDINGS)), np.float32)
    for box, finding in zip(boxes, findings, strict=True):
        pairs = touches(box, reach).reshape(-1, 2).any(1)
        down = _overlap_px(box[1] + shift_px[0], rows, side_px)
        across = _overlap_px(box[0] + shift_px[1], columns, side_px)
        section = np.prod(box[:2, 1] - box[:2, 0] + 1)
        covered = down[:, None] * across
        shown = covered >= min(_SHARE_OF_CELL * side_px**2, _SHARE_OF_BOX * section)
        targets[pairs, ..., finding] = np.maximum(targets[pairs, ..., finding], shown)
    side = CELLS_PER_SIDE
    tokens = targets.reshape(len(targets), rows // side, side, columns // side, side, -1)
    tokens = tokens.transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(tokens).reshape(-1, side * side, len(FINDINGS))


def _overlap_px(
    bounds: Float64[np.ndarray, "2"], cells: int, side_px: int
) -> Float64[np.ndarray, "cells"]:
    """Pixels that an interval of pixel centres shares with each cell along one axis."""
    starts = np.arange(cells) * side_px - 0.5
    low = np.maximum(starts, bounds[0] - 0.5)
    high = np.minimum(starts + side_px, bounds[1] + 0.5)
    return np.asarray(np.clip(high - low, 0, None))


def localisation_loss(
    cell_logits: Float[Tensor, "visual_tokens cells 18"],
    volume_logits: Float[Tensor, "volumes 18"],
    cell_targets: Float[Tensor, "visual_tokens cells 18"],
    volume_targets: Float[Tensor, "volumes 18"],
    positive_weight: Float[Tensor, "18"],
    known: Bool[Tensor, "visual_tokens 18"] | None = None,
) -> Float[Tensor, ""]:
    """Binary cross entropy of the cells, weighted, plus that of the volumes; each is a mean.

    Args:
        cell_logits: Of `FindingsHead`.
        volume_logits: Of `FindingsHead`.
        cell_targets: See `cell_targets`.
        volume_targets: 1 where a lesion lies in any of the slices shown.
        positive_weight: Weight of a positive cell relative to a negative one, per finding.
        known: For which findings a token's cells have targets; None where all have.
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
    """−log of the share of attention that falls on lesions, a mean over the findings shown.

    A finding's attention is the softmax of its cell logits over one volume. ``sizes`` are the
    numbers of tokens of each volume.
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
    """Negative cells per positive one, clamped to 1…1000: a weight that balances both kinds.

    A small lesion covers one cell in thousands and would hardly count otherwise. ``total`` counts,
    per finding, the cells that have a target.
    """
    ratio = (total - positives) / positives.clamp(min=1)
    return ratio.clamp(1, _MAX_POSITIVE_WEIGHT)
