"""Frames, and batches of them."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

ANSWERS = ["Findings: The lungs are clear.\nImpression: Normal.", "Findings: 12 mm nodule."]


def random_frames(slices: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (slices, height, width, 3), generator=generator).to(torch.uint8)


def prompt(tokenizer: PreTrainedTokenizerBase, tokens: int, question: str) -> Tensor:
    """Ids of a question behind ``tokens`` visual tokens."""
    video = "<|vision_start|>" + "<|video_pad|>" * tokens + "<|vision_end|>"
    text = f"<|im_start|>user\n{video}{question}<|im_end|>\n<|im_start|>assistant\n"
    return torch.tensor(tokenizer(text).input_ids)


def _encode(tokenizer: PreTrainedTokenizerBase, tokens: int, answer: str) -> tuple[Tensor, Tensor]:
    """Ids and labels of a prompt with ``tokens`` visual tokens and an answer."""
    question = prompt(tokenizer, tokens, "Describe.").tolist()
    reply = tokenizer(answer + "<|im_end|>").input_ids
    return torch.tensor(question + reply), torch.tensor([-100] * len(question) + reply)


def make_batch(
    tokenizer: PreTrainedTokenizerBase, answers: list[str], frames: list[Tensor], padding: int = 0
) -> Any:  # noqa: ANN401  # a dictionary from which tests take keys away
    """A right-padded batch of the shape `pairs.collate.Batch` has."""
    grids = torch.tensor([[len(f) // 2, f.shape[1] // 14, f.shape[2] // 14] for f in frames])
    tokens = [int(grid.prod()) // 4 for grid in grids]
    pairs = [_encode(tokenizer, n, a) for n, a in zip(tokens, answers, strict=True)]
    longest = max(len(ids) for ids, _ in pairs) + padding
    ids = torch.full((len(pairs), longest), int(tokenizer.pad_token_id))
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (question, label) in enumerate(pairs):
        ids[row, : len(question)] = question
        mask[row, : len(question)] = 1
        labels[row, : len(question)] = label
    widest = int(grids[:, 0].max())
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "video_grid_thw": grids,
        "position_mm": -68.0 * torch.arange(widest).expand(len(frames), -1),
        "frames": frames,
    }
