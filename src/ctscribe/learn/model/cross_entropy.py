"""Cross entropy over a large vocabulary without ever holding all its logits."""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS_PER_CHUNK = 1024


def token_cross_entropy(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocabulary hidden"],
    targets: Int[Tensor, "tokens"],
) -> Float[Tensor, "tokens"]:
    """−log softmax(hidden · weightᵀ) at each row's target, in nats.

    Logits exist for a thousand rows at a time, and their derivative takes their place. The gradient
    needs it again: of a single chunk it is kept, of several it is computed anew. Sums over the
    vocabulary are float32 or wider, and so is the sum of the weight's gradient over the chunks;
    products have the type of autocast where it is on, else the wider of the operands' types.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
    losses: Tensor = _TokenCrossEntropy.apply(hidden, weight, targets, dtype)  # type: ignore[no-untyped-call]
    return losses


@final
class _TokenCrossEntropy(torch.autograd.Function):
    """`token_cross_entropy` with its gradient: (softmax − one-hot), scaled by what comes in."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own context
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        columns = weight.to(dtype).T
        losses, kept = [], None
        for rows in _chunks(len(targets)):
            kept = None  # the last chunk's table is free before the next one's is made
            loss, kept = _loss_and_slope(hidden[rows].to(dtype) @ columns, targets[rows])
            losses.append(loss)
        if len(losses) > 1:
            kept = None
        ctx.dtype = dtype
        ctx.save_for_backward(hidden, weight, targets, kept)
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, targets, kept = ctx.saved_tensors
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        matrix = weight.to(ctx.dtype)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        of_hidden = torch.empty_like(hidden) if needs_hidden else None
        of_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        for rows in _chunks(len(targets)):
            states, scale = hidden[rows].to(ctx.dtype), upstream[rows, None]
            slope = kept
            if slope is None:
                _, slope = _loss_and_slope(states @ matrix.T, targets[rows])
            # scaling what is narrow leaves the table over the vocabulary untouched
            if of_hidden is not None:
                of_hidden[rows] = ((slope @ matrix) * scale).to(hidden.dtype)
            scaled = (states * scale).to(ctx.dtype)
            if of_weight is not None and of_weight.dtype == ctx.dtype:
                of_weight.addmm_(slope.T, scaled)  # without a second table beside it
            elif of_weight is not None:
                of_weight += slope.T @ scaled
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _loss_and_slope(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, "tokens"]
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens vocabulary"]]:
    """Loss of each row, and its derivative by the logits, written over them where they are wide."""
    table = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = table.gather(-1, targets[:, None])
    largest = table.amax(-1, keepdim=True)
    total = table.sub_(largest).exp_().sum(-1, keepdim=True)
    table.div_(total).scatter_add_(-1, targets[:, None], torch.full_like(chosen, -1))
    return (largest + total.log() - chosen)[:, 0], table.to(logits.dtype)


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, max(length, 1), _ROWS_PER_CHUNK):
        yield slice(start, start + _ROWS_PER_CHUNK)
