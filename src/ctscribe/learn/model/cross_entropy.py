"""Chunked cross entropy: the logits of a large vocabulary never exist all at once."""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS_PER_CHUNK = 1024
"""Rows whose logits exist at once."""


def token_cross_entropy(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocabulary hidden"],
    targets: Int[Tensor, "tokens"],
) -> Float[Tensor, "tokens"]:
    """−log softmax(hidden · weightᵀ) at each row's target, in nats.

    Logits are computed for 1,024 rows at a time and overwritten by their gradient. If there is only
    one such chunk, the gradient is kept for the backward pass; of several it is recomputed there.

    Matrix products have autocast's dtype where it is on, else the wider of the operands' dtypes.
    The softmax and the sum of the weight's gradient over chunks are in float32 or wider.
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
    """Its gradient by the logits is (softmax − one-hot), times the upstream gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own context
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        transposed = weight.to(dtype).T
        losses, grad_logits = [], None
        for rows in _chunks(len(targets)):
            grad_logits = None  # frees the last chunk's before the next logits are allocated
            loss, grad_logits = _loss_and_grad(hidden[rows].to(dtype) @ transposed, targets[rows])
            losses.append(loss)
        if len(losses) > 1:
            grad_logits = None
        ctx.dtype = dtype
        ctx.save_for_backward(hidden, weight, targets, grad_logits)
        return torch.cat(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, targets, saved_grad = ctx.saved_tensors
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        matrix = weight.to(ctx.dtype)
        wide = torch.promote_types(ctx.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        for rows in _chunks(len(targets)):
            states, scale = hidden[rows].to(ctx.dtype), upstream[rows, None]
            grad_logits = saved_grad
            if grad_logits is None:
                _, grad_logits = _loss_and_grad(states @ matrix.T, targets[rows])
            # the upstream gradient scales the factors of width `hidden`, which is far cheaper than
            # scaling the table over the vocabulary
            if grad_hidden is not None:
                grad_hidden[rows] = ((grad_logits @ matrix) * scale).to(hidden.dtype)
            scaled = (states * scale).to(ctx.dtype)
            if grad_weight is not None and grad_weight.dtype == ctx.dtype:
                grad_weight.addmm_(grad_logits.T, scaled)  # no second table beside it
            elif grad_weight is not None:
                grad_weight += grad_logits.T @ scaled
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None


def _loss_and_grad(
    logits: Float[Tensor, "tokens vocabulary"], targets: Int[Tensor, "tokens"]
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens vocabulary"]]:
    """Loss of each row, and its gradient by the logits; float32 logits are overwritten by it."""
    table = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target_logits = table.gather(-1, targets[:, None])
    largest = table.amax(-1, keepdim=True)
    total = table.sub_(largest).exp_().sum(-1, keepdim=True)
    table.div_(total).scatter_add_(-1, targets[:, None], torch.full_like(target_logits, -1))
    return (largest + total.log() - target_logits)[:, 0], table.to(logits.dtype)


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, max(length, 1), ROWS_PER_CHUNK):
        yield slice(start, start + ROWS_PER_CHUNK)
