"""What each cell of a visual token shows, and the losses of a tower that learns to tell."""

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
"""A visual token tells where in its square a finding is, in cells: of 7 × 7 px for 28 × 28."""
_SHARE_OF_CELL, _SHARE_OF_BOX = 0.25, 0.3
_MAX_POSITIVE_WEIGHT = 1000.0


def cell_px(qwen: PreTrainedModel) -> int:
    """Side of a model's cells."""
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

    A cell counts when the lesion's box covers a quarter of it, or when it holds 30 % of the box's
    section: a box's corner is not a lesion, yet a nodule smaller than a cell is seen.

    Args:
        boxes: From `boxes_in_frames`.
        findings: Index into `FINDINGS` of each box.
        reach: Of the frames, from `reach_of_frames`.
        frame_size_px: (height, width).
        shift_px: By which the frames were moved (down, to the right).
        side_px: Of a cell.
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


def where_loss(
    cell_logits: Float[Tensor, "visual_tokens cells 18"],
    volume_logits: Float[Tensor, "volumes 18"],
    cell_targets: Float[Tensor, "visual_tokens cells 18"],
    volume_targets: Float[Tensor, "volumes 18"],
    positive_weight: Float[Tensor, "18"],
    known: Bool[Tensor, "visual_tokens 18"] | None = None,
) -> Float[Tensor, ""]:
    """Weighted binary cross entropy of the cells plus that of the volumes, each a mean.

    Logits come from `FindingsHead`; targets are 1 where a lesion lies, of a volume in any slice
    shown. ``positive_weight`` is that of a positive cell against a negative one. ``known`` says
    of which findings a token's cells are known; None where all are.
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

    A finding's attention is the softmax of its `FindingsHead` logits over a volume; ``sizes`` are
    the tokens of each volume.
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

    A small lesion covers one cell in thousands, and would hardly teach with less. ``total`` counts
    the cells of which it is known whether they show the finding.
    """
    ratio = (total - positives) / positives.clamp(min=1)
    return ratio.clamp(1, _MAX_POSITIVE_WEIGHT)
