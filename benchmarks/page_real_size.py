"""The page of `bench_real_size`: what was measured, and what an epoch of CT-RATE takes by that."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench_ct_rate import TEST_SCANS, TRAIN_SCANS, sample_of
from benchmarks.costs import (
    VOCABULARIES,
    adapter_weights,
    kept_bytes,
    pair_flops,
    published_config,
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


def told(path: Path) -> dict[str, str]:
    """Both tables, and what the first one was measured on; ``path`` is that of the numbers."""
    measured, about = NOT_RUN, ""
    if path.exists():
        result = read_json(path)
        measured, about = measured_table(result["parts"]), _about(result)
    sample = sample_of(read_recipe("qwen2.5-vl-3b"))
    return {
        "measured": measured,
        "about": about,
        "epochs": epoch_table(),
        "sizes": size_table(),
        "tokens": f"{sample.tokens:,}",
        "visual_tokens": f"{sample.visual_tokens:,}",
        "answer_tokens": str(sample.answer_tokens),
        "scans": f"{TRAIN_SCANS + TEST_SCANS:,}",
        "pairs": f"{_num_pairs():,}",
        "share": f"{RATE:.0%}".replace("%", " %"),
    }


def _about(result: Mapping[str, Any]) -> str:
    pair = result["parts"]["pair"]
    one, five, fifteen = result["load_average"]
    return (
        f"{result['preset']} on {result['device']} ({result['machine']}, {result['threads']} "
        f"thread(s), load {one:.1f}, {five:.1f}, {fifteen:.1f} at the end); the pair has "
        f"{pair['tokens']:,} tokens a branch, {pair['visual_tokens']:,} of them visual and "
        f"{pair['answer_tokens']} of the answer."
    )


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
        sample, rank = sample_of(recipe), recipe.model.lora_r
        seeing = (TRAIN_SCANS + TEST_SCANS) * tower_flops(config, sample)
        learning = _num_pairs() * pair_flops(config, sample, rank)
        skipped = _num_pairs() * pair_flops(config, sample, rank, skipped=True)
        for gpu, peak in PEAKS.items():
            for number in GPUS:
                hours = 3600 * RATE * peak * number
                all_hours = (f"{work / hours:.2f}" for work in (seeing, learning, skipped))
                rows.append((preset, gpu, str(number), *all_hours))
    epochs = ("an epoch, h", "no negative within its cap, h")
    return table(("model", "GPU", "GPUs", "features, once, h", *epochs), rows)


def size_table() -> str:
    """Memory of one GPU that trains adapters, nothing computed again."""
    rows = []
    for preset in VOCABULARIES:
        recipe, config = read_recipe(preset), published_config(preset)
        rank = recipe.model.lora_r
        parts = (2 * weights(config), 16 * adapter_weights(config, rank))
        for visual_tokens in (sample_of(recipe).visual_tokens, 2880):
            sample = sample_of(recipe)
            text = sample.prompt_tokens + sample.answer_tokens
            kept = kept_bytes(config, rank) * (visual_tokens + text)
            shown = (f"{part / 1e9:.1f}" for part in (*parts, kept, sum(parts) + kept))
            rows.append((preset, f"{visual_tokens:,}", *shown))
    held = ("weights", "adapters, gradients, moments", "kept for the backward pass", "together")
    return table(("model", "visual tokens", *held), rows)


def _num_pairs() -> int:
    share = read_recipe("qwen2.5-vl-3b").splits.validation_fraction
    return TRAIN_SCANS - round(share * TRAIN_SCANS)
