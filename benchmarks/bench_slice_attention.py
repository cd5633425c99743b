"""What finding queries add to a training step on stored features, on one CPU core.

Two copies of a model take the same steps in turn, one with queries, gate and label loss. Larger
models have relatively less to do for the queries: their cost grows with the width, the language
model's with its square; the second model is twice as wide and deep as the smallest.
"""

import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.files import write_json
from ctscribe.base.runs import provenance
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import attach, label_loss
from ctscribe.learn.model.presets import build_config
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import Batch, collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.text.prompt import encode_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "slice_attention.json"
STUDIES, PAIRS, SIDE, DROPPED = 4, 5, 8, 5
REPORT = (
    "Findings: The trachea and both main bronchi are open. The heart and the great mediastinal "
    "vessels are normal in size and contour. No pleural or pericardial effusion is seen. A nodule "
    "of 12 mm is seen in the right upper lobe. Linear atelectasis is seen in the left lower lobe. "
    "The upper abdominal organs in the section are normal. Bone structures are natural.\n"
    "Impression: Nodule in the right upper lobe. Atelectasis in the left lower lobe."
)


def main() -> None:
    torch.set_num_threads(1)
    tiny, tokenizer = load_model(ROOT / "starts" / "tiny")
    found = {
        "tiny": measure(tiny, tokenizer, 205),
        "twice": measure(twice_as_large(tokenizer), tokenizer, 35),
    }
    write_json(OUT, {**found, **provenance()})
    print(found)


def twice_as_large(tokenizer: "PreTrainedTokenizerBase") -> Qwen2_5_VLForConditionalGeneration:
    config = build_config("tiny", tokenizer)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 768, 6
    text.num_attention_heads, text.num_key_value_heads = 8, 4
    text.layer_types = text.layer_types[:1] * text.num_hidden_layers
    config.vision_config.out_hidden_size = 256
    return Qwen2_5_VLForConditionalGeneration(config)


def measure(
    plain: Qwen2_5_VLForConditionalGeneration, tokenizer: "PreTrainedTokenizerBase", steps: int
) -> dict[str, float]:
    queried = deepcopy(plain)
    attach(queried)
    batch = make_batch(tokenizer, plain.config.text_config.hidden_size)
    models = [(model, optimiser_of(model)) for model in (plain, queried)]
    seconds = np.array([[step(*each, batch) for each in models] for _ in range(steps)])[DROPPED:]
    ratios = seconds[:, 1] / seconds[:, 0]
    return {
        "parameters": sum(weight.numel() for weight in plain.parameters()),
        "plain_ms": round(1000 * float(np.median(seconds[:, 0])), 2),
        "with_queries_ms": round(1000 * float(np.median(seconds[:, 1])), 2),
        "added_share_median": round(float(np.median(ratios)) - 1, 4),
        "added_share_of_sums": round(float(seconds[:, 1].sum() / seconds[:, 0].sum()) - 1, 4),
        "steps": len(ratios),
        "studies_per_step": STUDIES,
        "tokens_per_study": int(batch["input_ids"].shape[1]),
    }


def make_batch(tokenizer: "PreTrainedTokenizerBase", hidden_size: int) -> Batch:
    grid = (PAIRS, SIDE, SIDE)
    tokens = PAIRS * SIDE * SIDE // 4
    ids, labels = encode_example(tokenizer, REPORT, grid)
    positions = tuple(-60.0 * pair for pair in range(PAIRS))
    samples = [
        Sample(
            f"study {number}",
            torch.tensor(ids),
            torch.tensor(labels),
            Visual(grid, positions, visual_tokens=torch.randn(tokens, hidden_size)),
        )
        for number in range(STUDIES)
    ]
    return collate_samples(samples, int(tokenizer.pad_token_id))


def optimiser_of(model: Qwen2_5_VLForConditionalGeneration) -> torch.optim.Optimizer:
    model.requires_grad_(True)
    model.model.visual.requires_grad_(False)
    return torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], 1e-4)


def step(
    model: Qwen2_5_VLForConditionalGeneration, optimiser: torch.optim.Optimizer, batch: Batch
) -> float:
    began = time.process_time()
    losses = answer_losses(model, batch, "depth")
    loss = losses.per_sample().mean()
    if losses.finding_logits is not None:
        loss = loss + 0.1 * label_loss(losses.finding_logits, torch.zeros(STUDIES, 18))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return time.process_time() - began


if __name__ == "__main__":
    main()
