"""What a warm-up and two ways of training cost on this machine, so that arms can be equal."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctscribe.base.files import read_json
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import StudyRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

    from ctscribe.learn.pairs.dataset import Visual

TIMED = 64
"""Studies on which costs are measured."""


def costs(out: Path, recipe: Recipe, start: Path) -> dict[str, float]:
    """CPU seconds per look of a warm-up and per study of both trainings, measured in one go.

    From them the epochs that scratch may train: as long as plain and its start's warm-up took.
    """
    from ctscribe.data.splits import studies_of
    from ctscribe.learn.model.checkpoint import load_model

    qwen, tokenizer = load_model(start)
    studies = read_rows(out / "prepared" / "studies.jsonl", StudyRow)
    studies = studies_of(studies, "train", recipe.pairs.validation_fraction)
    report = read_json(start / "warm_up.json")
    looks = 2 * report["num_train"] * report["request"]["warm_up"]["epochs"]
    look_s = seconds_per_look(qwen, out, studies[:TIMED])
    frozen_s, learning_s = (
        seconds_per_study(qwen, tokenizer, out, studies[:TIMED], recipe, learning=learning)
        for learning in (False, True)
    )
    plain_s = read_recipe("tiny").train.epochs * len(studies) * frozen_s
    epochs = (looks * look_s + plain_s) / (len(studies) * learning_s)
    return {
        "look_s": look_s,
        "frozen_s": frozen_s,
        "learning_s": learning_s,
        "looks": looks,
        "studies": len(studies),
        "epochs": max(1, round(epochs)),
    }


def seconds_per_look(
    qwen: "Qwen2_5_VLForConditionalGeneration", out: Path, studies: list[StudyRow]
) -> float:
    from copy import deepcopy

    from ctscribe.data.lesions import read_where
    from ctscribe.learn.model.teach import teach
    from ctscribe.learn.warm_up import read_looks

    looks = read_looks(out / "prepared", studies, read_where(out / "data" / "truth.jsonl"), 1)
    began = time.process_time()
    teach(deepcopy(qwen), looks, epochs=1, batch_size=8, learning_rate=1e-3, seed=0)
    return (time.process_time() - began) / len(looks)


def seconds_per_study(
    qwen: "Qwen2_5_VLForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    out: Path,
    studies: list[StudyRow],
    recipe: Recipe,
    *,
    learning: bool,
) -> float:
    import torch

    from ctscribe.learn.model.features import frames_of, store_features
    from ctscribe.learn.model.qwen import answer_losses
    from ctscribe.learn.pairs.build import build_pairs
    from ctscribe.learn.pairs.collate import collate_pairs
    from ctscribe.learn.pairs.dataset import PairDataset
    from ctscribe.learn.train.scorer import choose_trainable

    prepared, windows = out / "prepared", recipe.slices.windows
    store = store_features(qwen, prepared, studies, windows=windows)
    knobs = recipe.model.model_dump(include={"tuning", "lora_r", "lora_alpha"})
    frozen = {"freeze_tower": not learning, "freeze_merger": not learning}
    choose_trainable(qwen, **frozen, **knobs)
    optimiser = torch.optim.AdamW([w for w in qwen.parameters() if w.requires_grad], 1e-6)

    def shown(study: StudyRow, seed: int | None) -> "Visual":
        return frames_of(prepared, study, windows=windows) if learning else store.visual(study)

    rows = build_pairs(studies, "origin", 10, 0)
    pairs = PairDataset({s.volume_name: s for s in studies}, rows, tokenizer, shown, 4096)
    size, pad_id, times = recipe.train.pairs_per_device, int(tokenizer.pad_token_id), []
    for start in range(0, len(pairs) - size + 1, size):
        began = time.process_time()
        batch = collate_pairs([pairs[n] for n in range(start, start + size)], pad_id)
        losses = answer_losses(qwen, batch["positive"], recipe.model.positions)
        optimiser.zero_grad()
        losses.per_sample().mean().backward()
        optimiser.step()
        times.append((time.process_time() - began) / size)
    return float(np.median(times))
