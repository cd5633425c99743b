"""Watches a trainer for `bench_train`: time, operations and gradients of its updates."""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback

Shape = tuple[int, ...]


def attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Two products of every query with every key, as torch counts its other kernels."""
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def attention_backward_flops(_: Shape, query: Shape, key: Shape, *rest: Any, **__: Any) -> int:
    """Five products where the forward pass has two."""
    return attention_flops(query, key, key) * 5 // 2


def in_place_product_flops(_: Shape, left: Shape, right: Shape, *__: Any, **___: Any) -> int:
    """As torch counts the same product when it is not added in place."""
    return 2 * left[0] * left[1] * right[1]


_UNCOUNTED = {
    torch.ops.aten.addmm_: in_place_product_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


class Watch(TrainerCallback):
    """Keeps the first update's gradients and times every update."""

    def __init__(self, trainer: Trainer, sampled: int) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.gradients: dict[str, Tensor] = {}
        self.share_skipped = 0.0
        self._trainer, self._sampled = trainer, sampled
        self._began = (0.0, 0.0)
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = (perf_counter(), process_time())

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        if not self.gradients:
            self.gradients = {
                name.removeprefix("qwen."): _sample(weight.grad, self._sampled)
                for name, weight in model.named_parameters()
                if weight.grad is not None
            }

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(perf_counter() - self._began[0])
        self.cpu_seconds.append(process_time() - self._began[1])

    def on_log(self, *_: Any, logs: Mapping[str, float], **__: Any) -> None:
        tally = getattr(self._trainer, "tally", None)
        if tally is not None and "grad_norm" in logs:
            from ctscribe.learn.train.trainer import means

            self.share_skipped = means(tally.take())["share_skipped"] or 0.0


def count_flops(trainer: Trainer) -> int:
    """Operations of one more pair; the counting itself takes memory, so do it last."""
    batch = trainer.data_collator([trainer.train_dataset[0]])
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        trainer.training_step(trainer.model, batch)
    return int(counter.get_total_flops())


def compared(gradients: Mapping[str, Tensor], path: Path, *, is_plain: bool) -> dict[str, Any]:
    """Largest difference from the plain row's gradients, on the weights both rows train."""
    if is_plain and not path.exists():
        torch.save(dict(gradients), path)
    plain: dict[str, Tensor] = torch.load(path, weights_only=True)
    shared = [name for name in gradients if name in plain]
    if not shared:
        return {"shared_weights": 0}
    off = [float((gradients[name] - plain[name]).abs().max()) for name in shared]
    relative = [
        float((gradients[name] - plain[name]).norm() / plain[name].norm().clamp(min=1e-12))
        for name in shared
    ]
    largest = max(float(plain[name].abs().max()) for name in shared)
    return {
        "shared_weights": len(shared),
        "max_abs_difference": max(off),
        "max_relative_difference": max(relative),
        "largest_gradient": largest,
    }


def matmul_tflops(dtype: str, side: int = 2048, tries: int = 8) -> float:
    """Operations per second of a large square product, the best of several tries."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 4 * side if device == "cuda" else side
    matrix = torch.randn(side, side, device=device).to(getattr(torch, dtype))
    best = float("inf")
    for _ in range(tries):
        began = perf_counter()
        matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, perf_counter() - began)
    return 2 * side**3 / best / 1e12


def tokens_per_branch(trainer: Trainer) -> int:
    """Of the first pair's positive."""
    return len(trainer.train_dataset[0].positive.input_ids)


def _sample(gradient: Tensor, most: int) -> Tensor:
    flat = gradient.detach().flatten()
    return flat[:: max(1, len(flat) // most)].float().cpu().clone()
