"""Findings look for their slices: 18 queries attend over a volume's visual tokens.

A query is what `FindingsHead` asks every cell of every visual token: the log-odds that its finding
is there. A volume's log-odds are their log-sum-exp, whose gradient is their softmax; that softmax
is the finding's attention. One set of weights therefore answers whether, on which slices, and
where, and what learns from boxes and from labels is the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.patches import MERGE, PATCH_PX
from ctscribe.scan.boxes import FrameBoxes, touches
from ctscribe.text.findings import FINDINGS

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


CELL_PX = PATCH_PX * MERGE // CELLS_PER_SIDE
_SHARE_OF_CELL, _SHARE_OF_BOX = 0.25, 0.3


def cell_targets(
    boxes: FrameBoxes,
    findings: Sequence[int],
    slice_indices: Sequence[int],
    frame_size_px: tuple[int, int],
    shift_px: tuple[int, int] = (0, 0),
) -> Float32[np.ndarray, "visual_tokens cells 18"]:
    """1 where a cell of a visual token shows a lesion.

    A cell counts when the lesion's box covers a quarter of it, or when it holds 30 % of the box's
    section: a box's corner is not a lesion, yet a nodule smaller than a cell is seen.

    Args:
        boxes: From `boxes_in_frames`.
        findings: Index into `FINDINGS` of each box.
        slice_indices: z index of each frame.
        frame_size_px: (height, width).
        shift_px: Rows and columns by which the frames were moved down and to the right.
    """
    rows, columns = (side // CELL_PX for side in frame_size_px)
    targets = np.zeros((len(slice_indices) // 2, rows, columns, len(FINDINGS)), np.float32)
    for box, finding in zip(boxes, findings, strict=True):
        pairs = touches(box, slice_indices).reshape(-1, 2).any(1)
        down = _overlap_px(box[1] + shift_px[0], rows)
        across = _overlap_px(box[0] + shift_px[1], columns)
        section = np.prod(box[:2, 1] - box[:2, 0] + 1)
        covered = down[:, None] * across
        shown = covered >= min(_SHARE_OF_CELL * CELL_PX**2, _SHARE_OF_BOX * section)
        targets[pairs, ..., finding] = np.maximum(targets[pairs, ..., finding], shown)
    side = CELLS_PER_SIDE
    tokens = targets.reshape(len(targets), rows // side, side, columns // side, side, -1)
    tokens = tokens.transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(tokens).reshape(-1, side * side, len(FINDINGS))


def _overlap_px(bounds: Float64[np.ndarray, "2"], cells: int) -> Float64[np.ndarray, "cells"]:
    """Pixels that an interval of pixel centres shares with each cell along one axis."""
    starts = np.arange(cells) * CELL_PX - 0.5
    low = np.maximum(starts, bounds[0] - 0.5)
    high = np.minimum(starts + CELL_PX, bounds[1] + 0.5)
    return np.asarray(np.clip(high - low, 0, None))


FILE = "slice_attention.safetensors"
"""Beside the weights of a run whose language model reads through the gate."""


class Gated(NamedTuple):
    """Visual tokens as the language model reads them, and what the queries found."""

    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    logits: Float[Tensor, "volumes 18"] | None
    """Log-odds of every finding in every volume; None where a model has no queries."""


@final
@dataclass(frozen=True)
class LocatedFindings:
    """What the queries saw in one volume."""

    logits: Float[Tensor, "18"]
    """Log-odds of every finding."""
    slices: Float[Tensor, "18 pairs"]
    """Share of a finding's attention on each pair of slices; sums to 1."""
    maps: Float[Tensor, "18 pairs rows columns"]
    """The same by cell of 7 × 7 px; sums to 1 over all pairs."""


@final
class SliceAttention(nn.Module):
    """Finding queries, and a gate by which they re-weight slices for the language model.

    The tokens of slice pair p of P are multiplied by 1 + tanh(Σ_f g_f · π_f · (P · a_fp − 1)),
    where π_f is finding f's probability, a_fp its attention's share on the pair and g_f what is
    learned. All g_f start at 0, so the factor starts as exactly 1 and a pretrained model reads
    what it always read. The factor stays in (0, 2), and attention spread evenly leaves it at 1.

    Args:
        hidden_size: Width of a visual token.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.head = FindingsHead(hidden_size)
        self.gate = nn.Parameter(torch.zeros(len(FINDINGS)))

    def forward(
        self,
        visual_tokens: Float[Tensor, "visual_tokens hidden"],
        video_grid_thw: Int[Tensor, "volumes 3"],
    ) -> Gated:
        """Re-weights slices.

        Args:
            visual_tokens: Of all volumes, one after the other; computed now or stored.
            video_grid_thw: Patches along (slice pairs, rows, columns) of each volume.
        """
        grids = [tuple(grid) for grid in video_grid_thw.tolist()]
        if len(set(grids)) == 1:
            return Gated(*self._gate(visual_tokens, len(grids), grids[0][0]))
        sizes = [pairs * rows * columns // 4 for pairs, rows, columns in grids]
        parts = [
            self._gate(tokens, 1, grid[0])
            for tokens, grid in zip(torch.split(visual_tokens, sizes), grids, strict=True)
        ]
        return Gated(torch.cat([gated for gated, _ in parts]), torch.cat([z for _, z in parts]))

    def _gate(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"], volumes: int, pairs: int
    ) -> tuple[Float[Tensor, "visual_tokens hidden"], Float[Tensor, "volumes 18"]]:
        """For volumes of one size, all at once."""
        cells = self.head.ask(visual_tokens.to(self.gate))
        cells = cells.to(torch.promote_types(cells.dtype, torch.float32))
        # the axis that is summed over lies last in memory, which takes a third of the time
        by_finding = cells.reshape(volumes, pairs, -1, len(FINDINGS)).transpose(2, 3).contiguous()
        pooled = by_finding.logsumexp(3)
        logits = pooled.logsumexp(1) + self.head.volume_bias
        excess = pairs * pooled.softmax(1) - 1
        factor = 1 + torch.tanh(excess @ (logits.sigmoid() * self.gate)[..., None])
        by_pair = visual_tokens.reshape(volumes, pairs, -1, visual_tokens.shape[-1])
        gated = by_pair * factor[..., None].to(visual_tokens.dtype)
        return gated.reshape(visual_tokens.shape), logits


def attach(
    qwen: Qwen2_5_VLForConditionalGeneration, head: Mapping[str, Tensor] | None = None
) -> SliceAttention:
    """Makes finding queries part of a model, in place; its answers stay what they were.

    Args:
        qwen: Stays its own class, so everything that reads it goes on working.
        head: A warm-up's ``findings_head.safetensors``; None starts with queries that know nothing.
    """
    attention = SliceAttention(qwen.config.text_config.hidden_size)
    if head is not None:
        attention.head.load_state_dict(head)
    qwen.slice_attention = attention.to(qwen.lm_head.weight.device)
    return attention


def warmed_head(folder: Path) -> dict[str, Tensor] | None:
    """The head that a warm-up left beside its weights, if there is one."""
    path = folder / "findings_head.safetensors"
    return load_file(path) if path.is_file() else None


def attached(qwen: Qwen2_5_VLForConditionalGeneration) -> SliceAttention | None:
    """The finding queries of a model that has them."""
    return getattr(qwen, "slice_attention", None)


def gate(
    qwen: Qwen2_5_VLForConditionalGeneration,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    video_grid_thw: Int[Tensor, "volumes 3"],
) -> Gated:
    """`SliceAttention.forward` of a model that has it; the tokens themselves for any other."""
    attention = attached(qwen)
    if attention is None:
        return Gated(visual_tokens, None)
    gated: Gated = attention(visual_tokens, video_grid_thw)
    return gated


def locate_findings(
    head: FindingsHead,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    grid_thw: Sequence[int],
) -> LocatedFindings:
    """Where one volume's findings are, as the queries see it.

    Args:
        head: Holds the queries.
        visual_tokens: Of the volume, as they come from the tower or from the store.
        grid_thw: Patches along (slice pairs, rows, columns).
    """
    pairs, rows, columns = grid_thw[0], grid_thw[1] // 2, grid_thw[2] // 2
    side, num = CELLS_PER_SIDE, len(FINDINGS)
    cells, logits = head(visual_tokens.to(head.volume_bias), [len(visual_tokens)])
    attention = cells.reshape(-1, num).softmax(0)
    maps = attention.reshape(pairs, rows, columns, side, side, num).permute(5, 0, 1, 3, 2, 4)
    maps = maps.reshape(num, pairs, rows * side, columns * side)
    return LocatedFindings(logits[0], maps.sum((2, 3)), maps)


def label_loss(
    logits: Float[Tensor, "volumes 18"], labels: Float[Tensor, "volumes 18"]
) -> Float[Tensor, ""]:
    """Mean binary cross entropy over the labels that are known; 0 where none is.

    Args:
        logits: From `SliceAttention`.
        labels: 1 present, 0 absent, NaN unknown.
    """
    known = ~torch.isnan(labels)
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.where(known, labels, 0), reduction="none"
    )
    return torch.where(known, each, 0).sum() / known.sum().clamp(min=1)
