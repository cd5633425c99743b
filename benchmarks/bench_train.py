"""A training step's cost: a plain trainer, then ours with each lever added in turn.

``python benchmarks/bench_train.py [--preset 50m] [--device cpu]`` writes
``results/train_step.json``. Every row trains in a process of its own, so that its peak memory is
its own; a row's time is that of its least disturbed update, by the clock and in seconds of CPU,
which other work on the machine disturbs less. Gradients of the first update are compared with the
plain row's on the weights both train.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

OUT = Path(__file__).parent / "results" / "train_step.json"
ROUNDS, UPDATES, PAIRS_PER_UPDATE = 1, 2, 1
_CALM = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "passive"}
"""Threads that wait do not count as work."""
SAMPLED = 16384
"""Gradient elements compared per weight."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="50m")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--updates", type=int, default=UPDATES, help="The first is not timed.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        print(json.dumps(run_row(asked.preset, asked.row, asked.updates, asked.folder)))
        return
    compare(asked.preset, asked.device, asked.rounds, asked.updates, asked.out)


def compare(preset: str, device: str, rounds: int, updates: int, out: Path) -> dict[str, Any]:
    """Runs all rows and writes what they cost."""
    from train_rows import ROWS, VARIANTS

    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(rounds):
            for row in (*ROWS, *VARIANTS):
                measured = child(preset, device, row.name, updates, Path(scratch))
                found.setdefault(row.name, []).append(measured)
                seconds = measured["seconds_per_pair"]
                spent = measured["cpu_s_per_pair"]
                line = f"{row.name}: {seconds:.2f} s, {spent:.2f} CPU s per pair"
                print(f"{turn + 1}/{rounds} {line}, {measured['peak_mb']:.0f} MB", flush=True)
    rate = max(turn["matmul_tflops"] for turns in found.values() for turn in turns)
    rows = [summarise(row.name, found[row.name], rate) for row in ROWS]
    plain, ours, skipped = rows[0], rows[-2], rows[-1]
    import torch
    import transformers

    result = {
        "device": found["plain"][0]["device"],
        "preset": preset,
        "parameters": found["plain"][0]["parameters"],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_average": os.getloadavg(),
        "matmul_tflops": rate,
        "tokens_per_branch": found["plain"][0]["tokens_per_branch"],
        "rows": rows,
        "variants": [summarise(row.name, found[row.name], rate) for row in VARIANTS],
        "nothing_skipped": ratios(ours, plain),
        "every_negative_skipped": ratios(skipped, plain),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k not in ("rows", "variants")}, indent=2))
    return result


def ratios(row: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """How many times the plain trainer's speed, at which share of its memory."""
    return {
        "speedup_by_the_clock": row["pairs_per_s"] / plain["pairs_per_s"],
        "speedup_in_cpu_seconds": plain["cpu_s_per_pair"] / row["cpu_s_per_pair"],
        "speedup_first_epoch": row["pairs_per_s_first_epoch"] / plain["pairs_per_s"],
        "memory_share": row["peak_mb"] / plain["peak_mb"],
        "memory_share_with_interpreter": row["peak_process_mb"] / plain["peak_process_mb"],
    }


def child(preset: str, device: str, row: str, updates: int, scratch: Path) -> dict[str, Any]:
    """One row in a fresh process, which shares nothing but the plain row's gradients."""
    command = [sys.executable, __file__, "--preset", preset, "--row", row]
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--folder", str(scratch), "--updates", str(updates)],
        env=os.environ | hidden | _CALM,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{row}: {done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_row(preset: str, name: str, updates: int, folder: Path) -> dict[str, Any]:
    """Trains a few updates of one row and measures them."""
    import torch
    from train_rows import PRESETS, ROWS, VARIANTS, make
    from train_watch import Watch, compared, count_flops, matmul_tflops, tokens_per_branch

    from ctscribe.learn.train.trainer import PairTrainer

    before_mb = _resident_mb()
    row = next(row for row in (*ROWS, *VARIANTS) if row.name == name)
    with tempfile.TemporaryDirectory() as own:
        bench = make(PRESETS[preset], row, PAIRS_PER_UPDATE, updates * PAIRS_PER_UPDATE, Path(own))
        watch = Watch(bench.trainer, SAMPLED)
        bench.trainer.train()
        process_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        on_gpu = torch.cuda.is_available()
        peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else process_mb - before_mb
        tokens, flops = tokens_per_branch(bench.trainer), count_flops(bench.trainer)
    model = bench.trainer.model
    learns = {n.removeprefix("qwen.") for n, p in model.named_parameters() if p.requires_grad}
    return {
        "device": torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} CPU cores",
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_branch": tokens,
        "seconds_per_pair": min(watch.seconds[1:]) / PAIRS_PER_UPDATE,
        "cpu_s_per_pair": min(watch.cpu_seconds[1:]) / PAIRS_PER_UPDATE,
        "seconds_per_stored_volume": bench.seconds_per_stored_volume,
        "peak_mb": peak_mb,
        "peak_process_mb": process_mb,
        "flops_per_pair": flops,
        "matmul_tflops": matmul_tflops(PRESETS[preset].dtype),
        "changes_the_mathematics": row.changes(),
        "trains": sorted({_part(name) for name in learns}),
        "share_skipped": watch.share_skipped if isinstance(bench.trainer, PairTrainer) else 0.0,
        "gradient": compared(watch.gradients, folder / "plain.pt", is_plain=name == "plain"),
    }


def summarise(name: str, turns: list[dict[str, Any]], matmul_tflops: float) -> dict[str, Any]:
    """A row of the result from its turns."""
    first = turns[0]
    seconds = min(turn["seconds_per_pair"] for turn in turns)
    stored = min(turn["seconds_per_stored_volume"] for turn in turns)
    return {
        "name": name,
        "pairs_per_s": 1 / seconds,
        "pairs_per_s_first_epoch": 1 / (seconds + stored),
        "cpu_s_per_pair": min(turn["cpu_s_per_pair"] for turn in turns),
        "peak_mb": mean(turn["peak_mb"] for turn in turns),
        "peak_process_mb": mean(turn["peak_process_mb"] for turn in turns),
        "flops_per_pair": first["flops_per_pair"],
        "share_of_matmul_rate": first["flops_per_pair"] / seconds / (1e12 * matmul_tflops),
        "changes_the_mathematics": first["changes_the_mathematics"],
        "trains": first["trains"],
        "share_skipped": first["share_skipped"],
        "gradient": first["gradient"],
    }


def _part(name: str) -> str:
    if ".lora_" in name:
        return "adapters"
    return "merger" if "visual.merger" in name else "tower" if "visual" in name else "language"


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
