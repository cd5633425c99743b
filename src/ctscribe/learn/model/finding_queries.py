"""Finding queries: 18 of them attend over a volume's visual tokens and find their slices.

A query is what `FindingsHead` asks every cell of every visual token: the log-odds that its finding
is there. A volume's log-odds are their log-sum-exp, whose gradient is their softmax; that softmax
is the finding's attention. One set of weights therefore answers whether, on which slices, and
where, and what learns from boxes and from labels is the same. `SliceAttention` lets the language
model read through them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from transformers import PreTrainedModel

from ctscribe.learn.model.cells import CELLS_PER_SIDE
from ctscribe.learn.model.families import feature_width
from ctscribe.text.findings import FINDINGS

HEAD_FILE = "findings_head.safetensors"
"""Beside the weights that a warm-up wrote: its `FindingsHead`."""
ATTENTION_FILE = "slice_attention.safetensors"
"""Beside the weights of a run whose language model reads through the gate: its `SliceAttention`."""
_USUAL_TOKENS = 80
"""Of a volume; sets the volumes' bias at the start."""


@final
class FindingsHead(nn.Module):
    """Log-odds of the 18 findings for each cell of each visual token, and for each volume.

    A volume's log-odds are the log-sum-exp of its cells' plus a bias per finding: one cell that
    shows a nodule is enough, and the gradient goes to the cells that show it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.cells = nn.Linear(hidden_size, CELLS_PER_SIDE**2 * len(FINDINGS))
        nn.init.constant_(self.cells.bias, -3.0)
        self.volume_bias = nn.Parameter(torch.zeros(len(FINDINGS)))
        num_cells = _USUAL_TOKENS * CELLS_PER_SIDE**2
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

        The tokens of all volumes follow one another; ``sizes`` are the tokens of each.
        """
        logits = self.ask(visual_tokens)
        pooled = [part.flatten(0, 1).logsumexp(0) for part in torch.split(logits, list(sizes))]
        return logits, torch.stack(pooled) + self.volume_bias


class Gated(NamedTuple):
    """Visual tokens as the language model reads them, and what the queries found."""

    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    logits: Float[Tensor, "volumes 18"] | None
    """Log-odds of every finding in every volume; None where a model has no queries."""


@final
class SliceAttention(nn.Module):
    """Finding queries, and a gate by which they re-weight slices for the language model.

    The tokens of slice pair p of P are multiplied by 1 + tanh(Σ_f g_f · π_f · (P · a_fp − 1)),
    where π_f is finding f's probability, a_fp its attention's share on the pair and g_f what is
    learned. All g_f start at 0, so the factor starts as exactly 1 and a pretrained model reads
    what it always read. The factor stays in (0, 2), and attention spread evenly leaves it at 1.
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
        """Re-weights the slices of volumes whose tokens follow one another.

        ``video_grid_thw`` counts patches along (slice pairs, rows, columns).
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


def attach(qwen: PreTrainedModel, head: Mapping[str, Tensor] | None = None) -> SliceAttention:
    """Makes finding queries part of a model, in place; its answers stay what they were.

    The model stays its own class. Without a warm-up's ``head`` the queries know nothing yet.
    """
    attention = SliceAttention(feature_width(qwen))
    if head is not None:
        attention.head.load_state_dict(head)
    qwen.slice_attention = attention.to(qwen.lm_head.weight.device)
    return attention


def attached(qwen: PreTrainedModel) -> SliceAttention | None:
    """The finding queries of a model that has them."""
    return getattr(qwen, "slice_attention", None)


def gate(
    qwen: PreTrainedModel,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    video_grid_thw: Int[Tensor, "volumes 3"],
) -> Gated:
    """`SliceAttention.forward` of a model that has it; the tokens themselves for any other."""
    attention = attached(qwen)
    if attention is None:
        return Gated(visual_tokens, None)
    gated: Gated = attention(visual_tokens, video_grid_thw)
    return gated


def warmed_head(folder: Path) -> dict[str, Tensor] | None:
    """The head that a warm-up left beside its weights, if there is one."""
    path = folder / HEAD_FILE
    return load_file(path) if path.is_file() else None


@final
@dataclass(frozen=True)
class LocatedFindings:
    """Where one volume's findings are."""

    logits: Float[Tensor, "18"]
    """Log-odds of every finding."""
    slices: Float[Tensor, "18 pairs"]
    """Share of a finding's attention on each pair of slices; sums to 1."""
    maps: Float[Tensor, "18 pairs rows columns"]
    """The same by cell, see `cell_px`; sums to 1 over all pairs."""


def locate_findings(
    head: FindingsHead,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    grid_thw: Sequence[int],
) -> LocatedFindings:
    """Where one volume's findings are, by the queries of ``head``.

    ``grid_thw`` counts patches along (slice pairs, rows, columns).
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

    Labels are 1 (present), 0 (absent) or NaN (unknown).
    """
    known = ~torch.isnan(labels)
    each = bce(logits, torch.where(known, labels, 0), reduction="none")
    return torch.where(known, each, 0).sum() / known.sum().clamp(min=1)
