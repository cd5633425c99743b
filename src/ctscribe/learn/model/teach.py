"""Teaching the vision tower where findings are, and asking how well it sees them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.files import ProgressCallback
from ctscribe.base.types import Labels
from ctscribe.learn.model.finding_queries import (
    FindingsHead,
    attention_loss,
    cell_targets,
    positive_weights,
    where_loss,
)
from ctscribe.learn.model.patches import patchify
from ctscribe.learn.model.qwen import encode_frames
from ctscribe.scan.boxes import FrameBoxes
from ctscribe.scan.types import Frames
from ctscribe.text.findings import FINDINGS

TOWER_LINEARS = r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"
"""Every linear layer of the tower's blocks."""


def let_tower_learn(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tower: Literal["full", "last_blocks", "lora"],
    *,
    last_blocks: int,
    lora_r: int,
    lora_alpha: int,
) -> None:
    """Freezes the model but for the part of its tower that shall learn, in place.

    Args:
        qwen: The model.
        tower: full: all of the tower; last_blocks: the last ones and the merger behind them;
            lora: adapters on all blocks, and the merger.
        last_blocks: How many.
        lora_r: Rank of the adapters.
        lora_alpha: Their scale, in units of rank.
    """
    visual = qwen.model.visual
    qwen.requires_grad_(False)
    if tower == "full":
        visual.requires_grad_(True)
        return
    visual.merger.requires_grad_(True)
    if tower == "last_blocks":
        visual.blocks[-last_blocks:].requires_grad_(True)
        return
    config = LoraConfig(r=lora_r, lora_alpha=lora_alpha, target_modules=TOWER_LINEARS, bias="none")
    inject_adapter_in_model(config, qwen)
    visual.merger.requires_grad_(True)  # adapters freeze what they are not put on


_RIDGE = 0.1


@torch.no_grad()
def whiten_patches(
    qwen: Qwen2_5_VLForConditionalGeneration,
    frames: Sequence[UInt8[Tensor, "_ _ _ 3"]],
) -> None:
    """Sets the patch embedding to the patches' principal components, each scaled to unit variance.

    Nearly all variance of CT patches is their mean brightness; random filters pass little else,
    and the norm behind them keeps only the direction of what they pass. After whitening (with a
    ridge, so that noise is not blown up) borders and texture count as much as brightness. The
    components are turned by a random rotation, since single ones mean nothing to the layers above.

    Args:
        qwen: Its patch embedding is replaced; torch's generator turns it.
        frames: Examples; some dozens of volumes suffice.
    """
    weight = qwen.model.visual.patch_embed.proj.weight
    width = len(weight)
    patches = torch.cat([patchify(volume)[0] for volume in frames])
    centred = patches - patches.mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, axes = variances[-width:], axes[:, -width:]
    ridge = _RIDGE * centred.square().mean()
    rotation = torch.linalg.qr(torch.randn(width, width)).Q
    whitening = rotation @ (axes / (variances.clamp(min=0) + ridge).sqrt()).T
    weight.copy_(whitening.reshape(weight.shape))


_MAX_SHIFT_PX = 14
_ADAMW_SHARE = 0.2


@final
@dataclass(frozen=True)
class Look:
    """One set of frames and where its findings are."""

    frames: Frames
    slice_indices: tuple[int, ...]
    boxes: FrameBoxes
    findings: tuple[int, ...]
    """Index into `FINDINGS` of each box."""
    labels: Labels

    @property
    def located(self) -> tuple[bool, ...]:
        """Per finding, whether its place is known: boxed, or absent and so nowhere."""
        return tuple(not label or i in self.findings for i, label in enumerate(self.labels))


@final
@dataclass(frozen=True)
class Learned:
    """What a warm-up ends with, besides the tower it changed."""

    head: FindingsHead
    losses: tuple[float, ...]
    """Mean per epoch."""


def teach(
    qwen: Qwen2_5_VLForConditionalGeneration,
    looks: Sequence[Look],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    attention_weight: float = 0.0,
    progress: ProgressCallback = lambda done, total: None,
) -> Learned:
    """Trains the tower, in place, and a new findings head.

    Each look is moved by up to half a token every time it is seen, so that lesions meet all
    places of the patch grid. A finding that is present but not boxed teaches its volume alone.

    Args:
        qwen: Of its tower, what requires gradients learns; nothing else does.
        looks: Training set.
        epochs: Passes over the looks.
        batch_size: Looks per step.
        learning_rate: Peak; rises for a twentieth of the steps, then cosine decay.
        seed: Of the head, the order and the shifts.
        attention_weight: Of `attention_loss` against `where_loss`.
        progress: Told (steps done, all steps).
    """
    tower = qwen.model.visual.train()
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    head = FindingsHead(qwen.config.text_config.hidden_size).to(tower.device)
    weight = _count_positives(looks).to(tower.device)
    steps = epochs * math.ceil(len(looks) / batch_size)
    optimisers = _optimisers(tower, head, learning_rate)
    schedules = [LambdaLR(each, partial(_cosine, steps=steps)) for each in optimisers]
    parameters, losses, done = [*_learning(tower), *head.parameters()], [], 0
    for _ in range(epochs):
        total = 0.0
        for batch in _shuffled(looks, batch_size, draw):
            loss = _loss(qwen, head, batch, draw, weight, attention_weight)
            _step(loss, parameters, optimisers, schedules)
            total += float(loss.detach()) * len(batch)
            done += 1
            progress(done, steps)
        losses.append(total / len(looks))
    qwen.eval()
    return Learned(head.eval(), tuple(losses))


@torch.inference_mode()
def examine(
    qwen: Qwen2_5_VLForConditionalGeneration, head: FindingsHead, looks: Sequence[Look]
) -> dict[str, Any]:
    """AUROC per finding over volumes, against labels and against what the slices show.

    Ten slices miss most small nodules, so the second says how well the tower sees, and the first
    how much of the truth such slices hold. None where a finding has no case or no control.
    """
    scores, shown = [], []
    for look in looks:
        frames, targets = _moved([look])
        scores.append(head(encode_frames(qwen, frames), [len(targets[0])])[1][0].cpu().numpy())
        shown.append(targets[0].amax((0, 1)).numpy() > 0)
    truths = {
        "auroc": np.array([look.labels for look in looks]) > 0,
        "auroc_shown": np.array(shown),
    }
    found: dict[str, Any] = {}
    for name, truth in truths.items():
        each = [auroc(s, t) for s, t in zip(np.array(scores).T, truth.T, strict=True)]
        found[name] = dict(zip(FINDINGS, each, strict=True))
        known = [value for value in each if value is not None]
        found[f"mean_{name}"] = float(np.mean(known)) if known else None
    return found


def auroc(scores: Float32[np.ndarray, "cases"], truth: Bool[np.ndarray, "cases"]) -> float | None:
    """Probability that a case scores above a control, ties counting half."""
    cases, controls = scores[truth], scores[~truth]
    if not len(cases) or not len(controls):
        return None
    above = (cases[:, None] > controls).mean() + 0.5 * (cases[:, None] == controls).mean()
    return float(above)


def _step(
    loss: Float[Tensor, ""],
    parameters: Sequence[nn.Parameter],
    optimisers: Sequence[Optimizer],
    schedules: Sequence[LambdaLR],
) -> None:
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimiser, schedule in zip(optimisers, schedules, strict=True):
        optimiser.step()
        schedule.step()


def _loss(
    qwen: Qwen2_5_VLForConditionalGeneration,
    head: FindingsHead,
    looks: Sequence[Look],
    draw: np.random.Generator,
    weight: Float[Tensor, "18"],
    attention_weight: float,
) -> Float[Tensor, ""]:
    frames, targets = _moved(looks, draw)
    sizes = [len(target) for target in targets]
    cell_logits, volume_logits = head(encode_frames(qwen, frames), sizes)
    cells = torch.cat(targets).to(cell_logits)
    shown = torch.stack([target.amax((0, 1)) for target in targets]).to(cell_logits)
    located = torch.tensor([look.located for look in looks], device=cell_logits.device)
    labels = torch.tensor([look.labels for look in looks]).to(cell_logits)
    present = torch.where(located, shown, labels)
    known = None
    if not bool(located.all()):
        known = located.repeat_interleave(torch.tensor(sizes, device=located.device), 0)
    loss = where_loss(cell_logits, volume_logits, cells, present, weight, known)
    if attention_weight:
        loss = loss + attention_weight * attention_loss(cell_logits, cells, sizes)
    return loss


def _learning(tower: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in tower.parameters() if weight.requires_grad]


def _optimisers(tower: nn.Module, head: nn.Module, learning_rate: float) -> list[Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for all else.

    On phantoms, a tower from nothing reached a loss of 0.61 in 4,800 looks, and 0.67 to 0.70 with
    AdamW alone at two rates.
    """
    learning = set(_learning(tower))
    blocks = [
        weight
        for name, weight in tower.named_parameters()
        if weight.ndim == 2 and name.startswith("blocks.") and weight in learning
    ]
    chosen = set(blocks)
    rest = [p for p in (*tower.parameters(), *head.parameters()) if p not in chosen]
    rest = [weight for weight in rest if weight.requires_grad]
    return [
        Muon(blocks, learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        AdamW(rest, _ADAMW_SHARE * learning_rate, weight_decay=0.01),
    ]


def _count_positives(looks: Sequence[Look]) -> Float[Tensor, "18"]:
    """Weights by how rare a finding's cells are among those whose truth is known."""
    positives, total = torch.zeros(len(FINDINGS)), torch.zeros(len(FINDINGS))
    for look in looks:
        (targets,) = _moved([look])[1]
        positives += targets.sum((0, 1))
        total += torch.tensor(look.located) * targets[..., 0].numel()
    return positive_weights(positives, total)


def _cosine(step: int, steps: int) -> float:
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _shuffled(
    looks: Sequence[Look], batch_size: int, draw: np.random.Generator
) -> Iterator[list[Look]]:
    order = draw.permutation(len(looks))
    for start in range(0, len(looks), batch_size):
        yield [looks[number] for number in order[start : start + batch_size]]


def _moved(
    looks: Sequence[Look], draw: np.random.Generator | None = None
) -> tuple[list[Tensor], list[Float[Tensor, "_ _ 18"]]]:
    """Frames and cell targets, moved by the same random shift where there is a generator."""
    frames, targets = [], []
    for look in looks:
        down = across = 0
        seen = look.frames
        if draw is not None:
            down, across = draw.integers(-_MAX_SHIFT_PX, _MAX_SHIFT_PX + 1, 2).tolist()
            seen = _shifted(seen, down, across)
        height, width = seen.shape[1:3]
        frames.append(torch.from_numpy(np.ascontiguousarray(seen)))
        where = cell_targets(
            look.boxes, look.findings, look.slice_indices, (height, width), (down, across)
        )
        targets.append(torch.from_numpy(where))
    return frames, targets


def _shifted(frames: Frames, down: int, across: int) -> Frames:
    """Frames moved over black; what leaves the frame is lost."""
    moved = np.zeros_like(frames)
    _, height, width, _ = frames.shape
    to_rows, from_rows = _shifted_range(down, height)
    to_columns, from_columns = _shifted_range(across, width)
    moved[:, to_rows, to_columns] = frames[:, from_rows, from_columns]
    return moved


def _shifted_range(shift: int, length: int) -> tuple[slice, slice]:
    return (
        slice(max(0, shift), min(length, length + shift)),
        slice(max(0, -shift), min(length, length - shift)),
    )
