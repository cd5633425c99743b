"""What contrast adds to a report: seconds against plain writing, in the same run.

Two models of the real class: the demo's dimensions with its 80 visual tokens, and one of 41 million
random weights with 2,000 visual tokens a scan. By operations, a report of n tokens on a prompt of p
costs p + n, and each volume it is held against n more, for its prompt is read once for all scans.
"""

import statistics
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from benchmarks.harness import record, warm_start
from benchmarks.timing import measured
from ctscribe.base.recipe import GenerateConfig
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.contrast import prefill_contrast
from ctscribe.learn.model.decoding import Contrast, write_reports
from ctscribe.learn.pairs.dataset import Visual

NUM_TOKENS, REPEATS = 150, 3
SIZES = {"demo, 80 visual tokens": (32, (5, 8, 8)), "41 M, 2,000 visual tokens": (2, (10, 40, 20))}
"""Reports at once, and the grid of a scan."""
AGAINST = {"mean": 1, "others, 2": 2, "others, 8": 8}


def build(name: str) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    qwen, tokenizer = load_model(warm_start(), "float32")
    if not name.startswith("demo"):
        config = Qwen2_5_VLConfig.from_pretrained(warm_start())
        language = config.text_config
        language.hidden_size, language.intermediate_size = 640, 1792
        language.num_hidden_layers, language.layer_types = 8, ["full_attention"] * 8
        language.num_attention_heads, language.num_key_value_heads = 20, 4
        config.vision_config.out_hidden_size = 640
        torch.manual_seed(0)
        qwen = Qwen2_5_VLForConditionalGeneration(config).eval()
    end = torch.tensor([tokenizer.eos_token_id])
    # no report ends before its length
    qwen.lm_head.register_forward_hook(lambda *states: states[2].index_fill(-1, end, -1e4))
    return qwen, tokenizer


def volumes(
    qwen: Qwen2_5_VLForConditionalGeneration, grid: tuple[int, int, int], n: int
) -> list[Visual]:
    tokens = grid[0] * grid[1] * grid[2] // 4
    places = tuple(-30.0 * pair for pair in range(grid[0]))
    draw = torch.Generator().manual_seed(n)
    width = qwen.config.text_config.hidden_size
    return [
        Visual(grid, places, None, torch.randn(tokens, width, generator=draw), f"{n}/{k}")
        for k in range(n)
    ]


def rows_of(name: str) -> dict[str, Any]:
    at_once, grid = SIZES[name]
    qwen, tokenizer = build(name)
    scans = volumes(qwen, grid, at_once)

    def seconds(contrast: Contrast | None) -> float:
        written, cost = measured(
            lambda: write_reports(qwen, tokenizer, scans, "depth", NUM_TOKENS, contrast=contrast)
        )
        if any(len(answer.token_ids) != NUM_TOKENS for answer in written):
            raise AssertionError("every report must have the same length")
        return cost.cpu_s / at_once

    held = {
        kind: prefill_contrast(
            *(qwen, tokenizer, volumes(qwen, grid, n), "depth"),
            GenerateConfig(contrast="others", num_negatives=n),
        )
        for kind, n in AGAINST.items()
    }
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for kind, contrast in {"plain": None, **held}.items():
            times.setdefault(kind, []).append(seconds(contrast))
    plain = times.pop("plain")
    return {
        "reports_at_once": at_once,
        "plain_cpu_s_per_report": round(statistics.median(plain), 3),
        "times_plain": {
            kind: round(statistics.median(t / p for t, p in zip(each, plain, strict=True)), 2)
            for kind, each in times.items()
        },
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record("contrast", {"tokens_a_report": NUM_TOKENS, **{name: rows_of(name) for name in SIZES}})
