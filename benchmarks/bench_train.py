"""A training step's cost: what a plain trainer with the same frozen tower takes, and ours.

``make bench NAME=train``; on a GPU ``ARGS="--preset qwen2.5-vl-7b --device cuda"``; ``ARGS=--page``
makes the page alone. Every row trains in a process of its own; its time is that of its least
disturbed update, by the clock and in seconds of CPU, which other work on the machine disturbs less.
Rows that a user chooses between take turns. Gradients of the first update must be the plain row's
wherever a row says that its mathematics are.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback

from benchmarks.harness import RESULTS, record, table, write_page
from benchmarks.timing import alone, measured
from benchmarks.train_rows import (
    COMPARED,
    NUM_SLICES,
    ONCE,
    PLAIN,
    PLAIN_AGAIN,
    PLAIN_TWO,
    PRESETS,
    Row,
    make,
)
from ctscribe.base.files import read_json
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.train.trainer import PairTrainer, means

UPDATES, PAIRS = 2, 2
"""Updates, of which the first is not timed, and pairs in each."""
SAMPLED = 16384
"""Gradient elements compared per weight."""
EQUAL_TO = 1e-6
"""Of the gradient's norm: what sums in another order may differ by in float32."""
BESIDE = ("speedup_in_cpu_seconds", "first_epoch_in_cpu_seconds", "memory_share")
"""What stands beside a plain trainer on the page: later epochs, the first one, memory."""
TIMES = ("s_per_pair", "cpu_s_per_pair", "s_per_volume_stored", "cpu_s_per_volume_stored")
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
    at_once = int(trainer.args.per_device_train_batch_size)
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(at_once)])
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        trainer.training_step(trainer.model, batch)
    return int(counter.get_total_flops()) // at_once


@torch.no_grad()
def count_tower_flops(trainer: Trainer, side_px: int) -> int:
    """Operations of storing one volume's features."""
    frames = torch.zeros(NUM_SLICES, side_px, side_px, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        encode_frames(trainer.model.qwen, [frames])
    return int(counter.get_total_flops())


def compared(gradients: Mapping[str, Tensor], plain: Mapping[str, Tensor]) -> dict[str, Any]:
    """Norm of the difference from the plain row's gradient, on the weights both rows train."""
    shared = [name for name in gradients if name in plain]
    if not shared:
        return {"shared_weights": 0}
    ours, theirs = (torch.cat([of[name] for name in shared]) for of in (gradients, plain))
    return {
        "shared_weights": len(shared),
        "share_of_norm_that_differs": float((ours - theirs).norm() / theirs.norm()),
    }


def require_equal(row: Row, found: Mapping[str, Any]) -> None:
    """Stops the bench where a row that does not change the mathematics has another gradient."""
    share = 0.0 if row.changes() else found["gradient"]["share_of_norm_that_differs"]
    if share > EQUAL_TO:
        raise SystemExit(f"{row.name}: the gradient differs by {share:.1e} of its norm")


def run_row(preset_name: str, row: Row, folder: Path) -> dict[str, Any]:
    """Trains a few updates of one row and measures them."""
    preset = PRESETS[preset_name]

    def train() -> tuple[Trainer, Watch, tuple[float, float]]:
        # a folder of its own: in another round features would be there already
        own = Path(mkdtemp(dir=folder))
        trainer, stored_s = make(preset, row, PAIRS, UPDATES * PAIRS, own)
        watch = Watch(trainer, SAMPLED)
        trainer.train()
        return trainer, watch, stored_s

    (trainer, watch, stored_s), cost = measured(train)
    on_gpu = torch.cuda.is_available()
    peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else cost.peak_mb
    if row == PLAIN:
        torch.save(watch.gradients, folder / "plain.pt")
    skipped = 0.0
    if isinstance(trainer, PairTrainer):
        skipped = means(trainer.tally.take())["share_skipped"] or 0.0
    several = min(watch.seconds[1:]), min(watch.cpu_seconds[1:])
    times = (*(seconds / PAIRS for seconds in several), *stored_s)
    return {
        "name": row.name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "tokens_per_branch": len(trainer.train_dataset[0].positive.input_ids),
        **dict(zip(TIMES, times, strict=True)),
        "peak_mb": peak_mb,
        "flops_per_pair": count_flops(trainer),
        "flops_per_volume_stored": count_tower_flops(trainer, preset.side_px) if row.stored else 0,
        "changes_the_mathematics": row.changes(),
        "share_skipped": skipped,
        "gradient": compared(watch.gradients, torch.load(folder / "plain.pt", weights_only=True)),
    }


def together(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row's runs as one: shortest times, most memory, and how much the runs differ."""
    shortest = {name: min(run[name] for run in runs) for name in TIMES}
    each = [run["cpu_s_per_pair"] for run in runs]
    return {
        **runs[0],
        **shortest,
        "peak_mb": max(run["peak_mb"] for run in runs),
        "cpu_s_per_pair_of_each_run": each,
    }


def beside(row: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, float]:
    """How many times a plain trainer's speed, at which share of its memory.

    In the first epoch the features of a volume are stored for every pair.
    """
    first = {
        kind: row[f"{kind}_per_pair"] + row[f"{kind}_per_volume_stored"] for kind in ("s", "cpu_s")
    }
    operations = row["flops_per_pair"], row["flops_per_volume_stored"]
    return {
        "speedup_by_the_clock": plain["s_per_pair"] / row["s_per_pair"],
        "speedup_in_cpu_seconds": plain["cpu_s_per_pair"] / row["cpu_s_per_pair"],
        "speedup_by_operations": plain["flops_per_pair"] / operations[0],
        "first_epoch_by_the_clock": plain["s_per_pair"] / first["s"],
        "first_epoch_in_cpu_seconds": plain["cpu_s_per_pair"] / first["cpu_s"],
        "first_epoch_by_operations": plain["flops_per_pair"] / sum(operations),
        "memory_share": row["peak_mb"] / plain["peak_mb"],
    }


def measure(preset_name: str, rounds: int) -> dict[str, Any]:
    """All rows; those that a user chooses between in turn, ``rounds`` times."""
    runs: dict[str, list[dict[str, Any]]] = {}
    with TemporaryDirectory() as scratch:
        for row in [*COMPARED * rounds, *ONCE]:
            found = alone(run_row, preset_name, row, Path(scratch))
            require_equal(row, found)
            runs.setdefault(row.name, []).append(found)
            cost = f"{found['s_per_pair']:.2f} s, {found['cpu_s_per_pair']:.2f} CPU s per pair"
            print(f"{row.name}: {cost}, {found['peak_mb']:.0f} MB", flush=True)
    rows = {name: together(several) for name, several in runs.items()}
    for found in rows.values():
        found["beside_plain"] = beside(found, rows[PLAIN.name])
        found["beside_plain_two_at_once"] = beside(found, rows[PLAIN_TWO.name])
        found["beside_plain_layers_computed_again"] = beside(found, rows[PLAIN_AGAIN.name])
    return {
        "preset": preset_name,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": os.getloadavg(),
        "rows": list(rows.values()),
    }


def page(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the page tells."""
    rows = {row["name"]: row for row in result["rows"]}
    return {
        "compared": _page_table([rows[row.name] for row in COMPARED]),
        "once": _page_table([rows[row.name] for row in ONCE]),
        "first": result["rows"][0],
        "pairs": PAIRS,
        **{
            side: "; ".join(name for name, row in rows.items() if _reaches(row, side)) or "no row"
            for side in ("beside_plain", "beside_plain_two_at_once")
        },
        "million": result["rows"][0]["parameters"] / 1e6,
        "equal_to": max(
            row["gradient"]["share_of_norm_that_differs"]
            for row in result["rows"]
            if not row["changes_the_mathematics"]
        ),
        "facts": result,
    }


def _reaches(row: Mapping[str, Any], side: str) -> bool:
    """What was aimed at, beside one of the plain trainers, at equal mathematics."""
    later, first, memory = (row[side][name] for name in BESIDE)
    return not row["changes_the_mathematics"] and later >= 2 and first >= 1.6 and memory <= 0.6


def _page_table(rows: Sequence[Mapping[str, Any]]) -> str:
    others = {
        "plain": "beside_plain",
        "plain two": "beside_plain_two_at_once",
        "plain again": "beside_plain_layers_computed_again",
    }
    columns = ["", "CPU s per pair", "MB", "10⁹ operations", *(f"beside {name}" for name in others)]
    lines = []
    for row in rows:
        sides = [[f"{row[field][name]:.2f}" for name in BESIDE] for field in others.values()]
        lines.append(
            (
                row["name"] + (" *" if row["changes_the_mathematics"] else ""),
                f"{row['cpu_s_per_pair']:.2f}",
                f"{row['peak_mb']:.0f}",
                f"{row['flops_per_pair'] / 1e9:.0f}",
                *(" · ".join(side) for side in sides),
            )
        )
    return table(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="50m", choices=list(PRESETS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", default=2, type=int, help="of the rows that are compared")
    parser.add_argument("--page", action="store_true", help="the page alone")
    asked = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait do not count as work
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if not asked.page:
        record("train", measure(asked.preset, asked.rounds))
    write_page("train", page(read_json(RESULTS / "train.json")))


if __name__ == "__main__":
    main()
