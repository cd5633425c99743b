"""A training step's cost: a plain trainer, then ours with each lever added in turn.

``make bench NAME=train``; on a GPU ``ARGS="--preset qwen2.5-vl-7b --device cuda"``. Every row
trains in a process of its own; its time is that of its least disturbed update, by the clock and in
seconds of CPU, which other work on the machine disturbs less. Gradients of the first update are
compared with the plain row's on the weights both train.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback

from benchmarks.harness import record
from benchmarks.timing import alone, measured
from benchmarks.train_rows import OURS, PLAIN, PRESETS, ROWS, SKIPPED, Row, make
from ctscribe.learn.train.trainer import PairTrainer, means

UPDATES = 2
"""Of one pair each; the first is not timed."""
SAMPLED = 16384
"""Gradient elements compared per weight."""
Shape = tuple[int, ...]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the first update's gradients and times every update."""

    def __init__(self, trainer: Trainer, sampled: int) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.gradients: dict[str, Tensor] = {}
        self._sampled = sampled
        self._began = (0.0, 0.0)
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = (perf_counter(), process_time())

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        if not self.gradients:
            for name, weight in model.named_parameters():
                if weight.grad is not None:
                    flat = weight.grad.detach().flatten()
                    some = flat[:: max(1, len(flat) // self._sampled)]
                    self.gradients[name.removeprefix("qwen.")] = some.float().cpu().clone()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(perf_counter() - self._began[0])
        self.cpu_seconds.append(process_time() - self._began[1])


def attention_flops(query: Shape, key: Shape, *_: Any, **__: Any) -> int:
    """Two products of every query with every key, as torch counts its other kernels."""
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def attention_backward_flops(_: Shape, query: Shape, key: Shape, *__: Any, **___: Any) -> int:
    """Five products where the forward pass has two."""
    return attention_flops(query, key) * 5 // 2


def in_place_product_flops(_: Shape, left: Shape, right: Shape, *__: Any, **___: Any) -> int:
    """As torch counts the same product when it is not added in place."""
    return 2 * left[0] * left[1] * right[1]


UNCOUNTED = {
    torch.ops.aten.addmm_: in_place_product_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def count_flops(trainer: Trainer) -> int:
    """Operations of one more pair; the counting itself takes memory, so do it last."""
    batch = trainer.data_collator([trainer.train_dataset[0]])
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        trainer.training_step(trainer.model, batch)
    return int(counter.get_total_flops())


def compared(gradients: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> dict[str, Any]:
    """Largest difference from the plain row's gradients, on the weights both rows train."""
    shared = [name for name in gradients if name in plain]
    if not shared:
        return {"shared_weights": 0}
    off = {name: gradients[name] - plain[name] for name in shared}
    relative = (float(off[n].norm() / plain[n].norm().clamp(min=1e-12)) for n in shared)
    return {
        "shared_weights": len(shared),
        "max_abs_difference": max(float(each.abs().max()) for each in off.values()),
        "max_relative_difference": max(relative),
        "largest_gradient": max(float(plain[name].abs().max()) for name in shared),
    }


def run_row(preset_name: str, row: Row, folder: Path) -> dict[str, Any]:
    """Trains a few updates of one row and measures them."""

    def train() -> tuple[Trainer, Watch, float]:
        trainer, seconds = make(PRESETS[preset_name], row, 1, UPDATES, folder / row.name)
        watch = Watch(trainer, SAMPLED)
        trainer.train()
        return trainer, watch, seconds

    (trainer, watch, stored_s), cost = measured(train)
    on_gpu = torch.cuda.is_available()
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else cost.peak_mb
    if row == PLAIN:
        torch.save(watch.gradients, folder / "plain.pt")
    seconds, skipped = min(watch.seconds[1:]), 0.0
    if isinstance(trainer, PairTrainer):
        skipped = means(trainer.tally.take())["share_skipped"] or 0.0
    return {
        "name": row.name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "tokens_per_branch": len(trainer.train_dataset[0].positive.input_ids),
        "pairs_per_s": 1 / seconds,
        "pairs_per_s_first_epoch": 1 / (seconds + stored_s),
        "cpu_s_per_pair": min(watch.cpu_seconds[1:]),
        "peak_mb": peak_mb,
        "flops_per_pair": count_flops(trainer),
        "changes_the_mathematics": row.changes(),
        "share_skipped": skipped,
        "gradient": compared(watch.gradients, torch.load(folder / "plain.pt", weights_only=True)),
    }


def ratios(row: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, float]:
    """How many times the plain trainer's speed, at which share of its memory."""
    return {
        "speedup_by_the_clock": row["pairs_per_s"] / plain["pairs_per_s"],
        "speedup_in_cpu_seconds": plain["cpu_s_per_pair"] / row["cpu_s_per_pair"],
        "speedup_first_epoch": row["pairs_per_s_first_epoch"] / plain["pairs_per_s"],
        "memory_share": row["peak_mb"] / plain["peak_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="50m", choices=list(PRESETS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    asked = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait do not count as work
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as scratch:
        for row in ROWS:
            rows[row.name] = found = alone(run_row, asked.preset, row, Path(scratch))
            cost = f"{1 / found['pairs_per_s']:.2f} s, {found['cpu_s_per_pair']:.2f} CPU s per pair"
            print(f"{row.name}: {cost}, {found['peak_mb']:.0f} MB", flush=True)
    result = {
        "preset": asked.preset,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg(),
        "nothing_skipped": ratios(rows[OURS.name], rows[PLAIN.name]),
        "every_negative_skipped": ratios(rows[SKIPPED.name], rows[PLAIN.name]),
        "rows": list(rows.values()),
    }
    record("train", result)


if __name__ == "__main__":
    main()
