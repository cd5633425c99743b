"""What finding queries add to a training step on stored features, on one CPU core.

Two copies of a model take the same steps in turn, one with queries, gate and label loss. Larger
models have relatively less to do for the queries: their cost grows with the width, the language
model's with its square; the second model is twice as wide and deep as the smallest.
"""

from copy import deepcopy
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from benchmarks.harness import record, warm_start
from benchmarks.timing import measured
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.finding_queries import attach_finding_queries, label_loss
from ctscribe.learn.model.presets import build_config
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import Batch, collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.text.prompt import encode_example

STUDIES, PAIRS, SIDE, DROPPED = 4, 5, 8, 5
STEPS = {"tiny": 205, "twice": 35}
REPORT = (
    "Findings: The trachea and both main bronchi are open. The heart and the great mediastinal "
    "vessels are normal in size and contour. No pleural or pericardial effusion is seen. A nodule "
    "of 12 mm is seen in the right upper lobe. Linear atelectasis is seen in the left lower lobe. "
    "The upper abdominal organs in the section are normal. Bone structures are natural.\n"
    "Impression: Nodule in the right upper lobe. Atelectasis in the left lower lobe."
)


def main() -> None:
    torch.set_num_threads(1)
    tiny, tokenizer = load_model(warm_start())
    models = {"tiny": tiny, "twice": twice_as_large(tokenizer)}
    record("slice_attention", {n: compare(q, tokenizer, STEPS[n]) for n, q in models.items()})


def twice_as_large(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLForConditionalGeneration:
    config = build_config("tiny", tokenizer)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 768, 6
    text.num_attention_heads, text.num_key_value_heads = 8, 4
    text.layer_types = text.layer_types[:1] * text.num_hidden_layers
    config.vision_config.out_hidden_size = 256
    return Qwen2_5_VLForConditionalGeneration(config)


def compare(
    plain: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, steps: int
) -> dict[str, float]:
    queried = deepcopy(plain)
    attach_finding_queries(queried)
    batch = make_batch(tokenizer, plain.config.text_config.hidden_size)
    learners = [Learner(qwen) for qwen in (plain, queried)]
    costs = [[measured(partial(at.step, batch))[1] for at in learners] for _ in range(steps)]
    seconds = np.array([[cost.cpu_s for cost in pair] for pair in costs])[DROPPED:]
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


def make_batch(tokenizer: PreTrainedTokenizerBase, hidden_size: int) -> Batch:
    grid = (PAIRS, SIDE, SIDE)
    ids, labels = map(torch.tensor, encode_example(tokenizer, REPORT, grid))
    positions = tuple(-60.0 * pair for pair in range(PAIRS))
    tokens = [torch.randn(PAIRS * SIDE * SIDE // 4, hidden_size) for _ in range(STUDIES)]
    samples = [
        Sample(f"study {number}", ids, labels, Visual(grid, positions, visual_tokens=seen))
        for number, seen in enumerate(tokens)
    ]
    return collate_samples(samples, int(tokenizer.pad_token_id))


class Learner:
    """A model and its optimiser, the tower frozen."""

    def __init__(self, qwen: Qwen2_5_VLForConditionalGeneration) -> None:
        self.qwen = qwen.requires_grad_(True)
        qwen.model.visual.requires_grad_(False)
        self.optimiser = torch.optim.AdamW([w for w in qwen.parameters() if w.requires_grad], 1e-4)

    def step(self, batch: Batch) -> None:
        losses = answer_losses(self.qwen, batch, "depth")
        loss = losses.per_sample().mean()
        if losses.finding_logits is not None:
            loss = loss + 0.1 * label_loss(losses.finding_logits, torch.zeros(STUDIES, 18))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()


if __name__ == "__main__":
    main()
