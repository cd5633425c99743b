"""Finding queries: one learned query per finding attends over a volume's visual tokens.

A query gives every cell of every visual token a logit: the log-odds that its finding is there. The
volume's logit is their log-sum-exp, whose gradient is their softmax; that softmax is the query's
attention. So one set of weights answers whether a finding is there, on which slices, and where, and
it can be trained on boxes and on labels alike. `SliceAttention` gates the visual tokens of a
language model with it.
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

from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.cells import CELLS_PER_SIDE
from ctscribe.learn.model.families import feature_width
from ctscribe.text.findings import FINDINGS

HEAD_FILE = "findings_head.safetensors"
"""Beside the weights that a warm-up wrote: the tensors of its `FindingsHead`."""
ATTENTION_FILE = "slice_attention.safetensors"
"""Beside the weights of a run with finding queries: the tensors of its `SliceAttention`."""
_USUAL_TOKENS = 80
"""Visual tokens of a typical volume, for which the volumes' bias is initialised."""


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

    def cell_logits(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"]
    ) -> Float[Tensor, "visual_tokens cells 18"]:
        """Log-odds of every finding in every cell."""
        logits: Tensor = self.cells(visual_tokens)
        return logits.reshape(len(visual_tokens), CELLS_PER_SIDE**2, len(FINDINGS))

    def forward(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"], sizes: Sequence[int]
    ) -> tuple[Float[Tensor, "visual_tokens cells 18"], Float[Tensor, "volumes 18"]]:
        """Log-odds per cell (cells of a token row by row), and per volume.

        The tokens of all volumes are concatenated; ``sizes`` are the numbers of tokens of each.
        """
        logits = self.cell_logits(visual_tokens)
        pooled = [part.flatten(0, 1).logsumexp(0) for part in torch.split(logits, list(sizes))]
        return logits, torch.stack(pooled) + self.volume_bias


class GatedTokens(NamedTuple):
    """Visual tokens as the language model reads them, and the volumes' log-odds."""

    visual_tokens: Float[Tensor, "visual_tokens hidden"]
    logits: Float[Tensor, "volumes 18"] | None
    """None where a model has no finding queries."""


@final
class SliceAttention(nn.Module):
    """Finding queries, and a gate by which they re-weight slice pairs for the language model.

    The tokens of slice pair p of P are multiplied by 1 + tanh(Σ_f g_f · π_f · (P · a_fp − 1)),
    where π_f is the probability of finding f, a_fp the share of its attention on the pair, and g_f
    a learned weight. The factor lies in (0, 2) and is 1 where attention is spread evenly. All g_f
    start at 0, so a pretrained model's input is unchanged at first.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.head = FindingsHead(hidden_size)
        self.gate = nn.Parameter(torch.zeros(len(FINDINGS)))

    def forward(
        self,
        visual_tokens: Float[Tensor, "visual_tokens hidden"],
        video_grid_thw: Int[Tensor, "volumes 3"],
    ) -> GatedTokens:
        """Gates the concatenated tokens of several volumes.

        ``video_grid_thw`` counts patches along (slice pairs, rows, columns).
        """
        grids = [tuple(grid) for grid in video_grid_thw.tolist()]
        if len(set(grids)) == 1:
            return GatedTokens(*self._gate(visual_tokens, len(grids), grids[0][0]))
        sizes = [pairs * rows * columns // MERGE**2 for pairs, rows, columns in grids]
        parts = [
            self._gate(tokens, 1, grid[0])
            for tokens, grid in zip(torch.split(visual_tokens, sizes), grids, strict=True)
        ]
        return GatedTokens(
            torch.cat([gated for gated, _ in parts]), torch.cat([z for _, z in parts])
        )

    def _gate(
        self, visual_tokens: Float[Tensor, "visual_tokens hidden"], volumes: int, pairs: int
    ) -> tuple[Float[Tensor, "visual_tokens hidden"], Float[Tensor, "volumes 18"]]:
        """Gated tokens and log-odds of volumes of one size, as a batch."""
        cells = self.head.cell_logits(visual_tokens.to(self.gate))
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


def attach_finding_queries(
    qwen: PreTrainedModel, head: Mapping[str, Tensor] | None = None
) -> SliceAttention:
    """Adds finding queries to a model, in place; its class and its answers stay the same.

    ``head`` are the tensors of a warm-up's head; without them the queries are untrained.
    """
    attention = SliceAttention(feature_width(qwen))
    if head is not None:
        attention.head.load_state_dict(head)
    qwen.slice_attention = attention.to(qwen.lm_head.weight.device)
    return attention


def finding_queries_of(qwen: PreTrainedModel) -> SliceAttention | None:
    """A model's finding queries; None where it has none."""
    return getattr(qwen, "slice_attention", None)


def gate_visual_tokens(
    qwen: PreTrainedModel,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    video_grid_thw: Int[Tensor, "volumes 3"],
) -> GatedTokens:
    """Gates visual tokens by a model's finding queries; without queries they stay as they are."""
    attention = finding_queries_of(qwen)
    if attention is None:
        return GatedTokens(visual_tokens, None)
    gated: GatedTokens = attention(visual_tokens, video_grid_thw)
    return gated


def read_warmed_head(folder: Path) -> dict[str, Tensor] | None:
    """Tensors of the head that a warm-up wrote beside its weights; None where there is none."""
    path = folder / HEAD_FILE
    return load_file(path) if path.is_file() else None


@final
@dataclass(frozen=True)
class LocatedFindings:
    """Where one volume's findings are."""

    logits: Float[Tensor, "18"]
    """Log-odds of every finding."""
    slices: Float[Tensor, "18 pairs"]
    """Share of each finding's attention on each slice pair; sums to 1."""
    maps: Float[Tensor, "18 pairs rows columns"]
    """The same for each cell (see `cells.cell_px`); sums to 1 over all pairs."""


def locate_findings(
    head: FindingsHead,
    visual_tokens: Float[Tensor, "visual_tokens hidden"],
    grid_thw: Sequence[int],
) -> LocatedFindings:
    """Where one volume's findings are, by the queries of ``head``.

    ``grid_thw`` counts patches along (slice pairs, rows, columns).
    """
    pairs, rows, columns = grid_thw[0], grid_thw[1] // MERGE, grid_thw[2] // MERGE
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
