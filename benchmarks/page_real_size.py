"""The page of `bench_real_size`: what was measured, and what an epoch of CT-RATE takes by that."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench_ct_rate import FIELD_MM, TEST_SCANS, TRAIN_SCANS, sample_of
from benchmarks.costs import (
    VOCABULARIES,
    Sample,
    adapter_weights,
    kept_bytes,
    pair_flops,
    published_config,
    recomputed_bytes,
    tower_flops,
    weights,
)
from benchmarks.harness import table
from ctscribe.base.files import read_json
from ctscribe.base.recipe import read_recipe

RATE, PEAKS = 0.4, {"A100": 312e12, "H100, H200": 989e12}
"""Share that is reached of a GPU's dense matrix products in bfloat16."""
GPUS = (1, 2, 8)
NOT_RUN = "Not run yet: `make bench NAME=real-size` puts the table here."


RECOMPUTED = {
    "qwen2.5-vl-3b": "cheap",
    "qwen2.5-vl-7b": "cheap",
    "qwen3-vl-4b": "cheap",
    "qwen3.5-4b": "true",
}
"""What of a pair is computed again, by what two cores have for memory."""


def told(folder: Path) -> dict[str, str]:
    """What was measured of each model, and both tables; ``folder`` is that of the numbers."""
    found = [folder / f"{preset}.json" for preset in VOCABULARIES]
    measured = [_measured(read_json(path)) for path in found if path.exists()]
    return {
        "measured": "\n\n".join(measured) or NOT_RUN,
        "epochs": epoch_table(),
        "sizes": size_table(),
        "scans": f"{TRAIN_SCANS + TEST_SCANS:,}",
        "pairs": f"{_num_pairs():,}",
        "share": f"{RATE:.0%}".replace("%", " %"),
    }


def _measured(result: Mapping[str, Any]) -> str:
    pair, preset = result["parts"]["pair"], result["preset"]
    one, five, fifteen = result["load_average"]
    about = (
        f"{preset} on {result['device']} ({result['machine']}, {result['threads']} thread(s), load "
        f"{one:.1f}, {five:.1f}, {fifteen:.1f} at the end); the pair has {pair['tokens']:,} tokens "
        f"a branch, {pair['visual_tokens']:,} of them visual and {pair['answer_tokens']} of the "
        f"answer, and `train.gradient_checkpointing={RECOMPUTED[preset]}`."
    )
    computed = {"computed_flops": _pair_computed(preset, pair)}
    return f"{measured_table(result['parts'] | {'pair': pair | computed})}\n\n{about}"


def _pair_computed(preset: str, pair: Mapping[str, Any]) -> int:
    """Operations of the measured pair by its tokens."""
    answer, visual = pair["answer_tokens"], pair["visual_tokens"]
    sample = Sample(1, 1, visual, pair["tokens"] - visual - answer, answer)
    rank, again = read_recipe(preset).model.lora_r, RECOMPUTED[preset] == "true"
    return pair_flops(published_config(preset), sample, rank, again=again)


def measured_table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            *(name, f"{one['wall_s']:.0f}", f"{one['cpu_s']:.0f}"),
            f"{one['flops'] / 1e12:.2f}",
            f"{one['computed_flops'] / 1e12:.2f}" if "computed_flops" in one else "–",
            f"{one['peak_gb']:.1f}",
            "–" if one["gpu_gb"] is None else f"{one['gpu_gb']:.1f}",
        )
        for name, one in parts.items()
    ]
    work = ("TFLOP, counted", "TFLOP, computed")
    return table(("part", "s", "CPU s", *work, "GB, host", "GB, GPU"), rows)


def epoch_table() -> str:
    """Hours of features, once, and of an epoch, by model, GPU and number of GPUs."""
    rows = []
    for preset in VOCABULARIES:
        recipe, config = read_recipe(preset), published_config(preset)
        sample, rank = sample_of(recipe, FIELD_MM), recipe.model.lora_r
        seeing = (TRAIN_SCANS + TEST_SCANS) * tower_flops(config, sample)
        learning = _num_pairs() * pair_flops(config, sample, rank)
        skipped = _num_pairs() * pair_flops(config, sample, rank, skipped=True)
        for gpu, peak in PEAKS.items():
            for number in GPUS:
                hours = 3600 * RATE * peak * number
                all_hours = (f"{work / hours:.2f}" for work in (seeing, learning, skipped))
                rows.append((preset, f"{sample.tokens:,}", gpu, str(number), *all_hours))
    epochs = ("an epoch, h", "no negative within its cap, h")
    return table(("model", "tokens", "GPU", "GPUs", "features, once, h", *epochs), rows)


def size_table() -> str:
    """Memory of one GPU that trains adapters."""
    rows = []
    for preset in VOCABULARIES:
        recipe, config = read_recipe(preset), published_config(preset)
        rank = recipe.model.lora_r
        held = 2 * weights(config), 16 * adapter_weights(config, rank)
        for side_mm in (FIELD_MM, 500):
            sample = sample_of(recipe, side_mm)
            all_kept = kept_bytes(config, rank) * sample.tokens
            again = recomputed_bytes(config, rank) * sample.tokens
            shown = (*held, all_kept, sum(held) + all_kept, again, sum(held) + again)
            told = (f"{part / 1e9:.1f}" for part in shown)
            rows.append((preset, f"{side_mm:.0f}", f"{sample.visual_tokens:,}", *told))
    asked = ("model", "field, mm", "visual tokens", "weights", "adapters")
    return table((*asked, "kept", "together", "kept, layers again", "together"), rows)


def _num_pairs() -> int:
    share = read_recipe("qwen2.5-vl-3b").splits.validation_fraction
    return TRAIN_SCANS - round(share * TRAIN_SCANS)
