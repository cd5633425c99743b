"""Updates of a sharded scorer; run by `test_sharded` under torchrun, each process its half."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ctscribe.model.checkpoint import load_model
from ctscribe.pairs.collate import Batch
from ctscribe.train.scorer import ReportScorer

STEPS, VIDEO_TOKENS = 3, 8


def made_up(seed: int, video_token_id: int) -> Batch:
    """One study of two slice pairs of 56 × 56 with a report of ten tokens."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 200, (1, 3 + VIDEO_TOKENS + 12), generator=draw)
    ids[0, 3 : 3 + VIDEO_TOKENS] = video_token_id
    labels = ids.clone()
    labels[:, : 5 + VIDEO_TOKENS] = -100
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        labels=labels,
        video_grid_thw=torch.tensor([[2, 4, 4]]),
        position_mm=torch.tensor([[50.0, 0.0]]),
        frames=[torch.randint(0, 255, (4, 56, 56, 3), generator=draw).to(torch.uint8)],
    )


def learn(scorer: ReportScorer, video_token_id: int, ranks: list[int]) -> list[list[float]]:
    """Losses of both branches; each study's pair is differentiated branch by branch."""
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=1e-3)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in ranks:
            seen = []
            for weight, seed in ((1.0, 2 * step + rank), (-0.1, 100 + 2 * step + rank)):
                ce = scorer(made_up(seed, video_token_id)).per_sample().mean()
                (weight * ce / len(ranks)).backward()
                seen.append(float(ce.detach()))
            losses.append(seen)
        optimizer.step()
    return losses


def main() -> None:
    qwen, _ = load_model(sys.argv[1])
    video_token_id = int(qwen.config.video_token_id)
    scorer = ReportScorer(qwen, "depth")
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    for layer in (*qwen.model.language_model.layers, *qwen.model.visual.blocks):
        fully_shard(layer, mesh=mesh)
    fully_shard(scorer, mesh=mesh)
    assert all(isinstance(weight, DTensor) for weight in scorer.parameters())
    losses = learn(scorer, video_token_id, [dist.get_rank()])
    Path(sys.argv[2], f"{dist.get_rank()}.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
