"""The estimate of a step's memory is what the step holds, and decides what is computed again."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.recipe import ModelConfig
from ctscribe.learn.model.backbone import Backbone
from ctscribe.learn.model.families import BACKBONES, with_markers
from ctscribe.learn.model.qwen import answer_losses, losses_of_both
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.learn.train import memory, stage
from ctscribe.learn.train.memory import StepMemory, _SavedBytes, activation_bytes, static_bytes
from ctscribe.learn.train.scorer import choose_trainable
from ctscribe.text.prompt import encode_example
from tests.learn.model.batches import make_batch, random_frames
from tests.learn.train.runs import Train, make_recipe, weights
from tests.models import tiny_model, tiny_of


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_branch_keeps_what_is_estimated(
    tokenizer: PreTrainedTokenizerBase,
    tuning: Literal["lora", "full"],
    dtype: Literal["float32", "bfloat16"],
) -> None:
    qwen = tiny_model(tokenizer).to(getattr(torch, dtype))
    choose_trainable(qwen, ModelConfig(tuning=tuning))
    batch = make_batch(tokenizer, ["A nodule in the lung. " * 20], [random_frames(8, 112, 112)])
    kept = kept_by(qwen, batch, dtype)
    estimate = activation_bytes(qwen, dtype, batch["input_ids"].shape[1])
    assert 0.95 * kept < estimate["none"] < 1.2 * kept
    assert estimate["none"] > estimate["layers"]
    # of what adapters add to, autograd alone keeps less than all products
    assert (estimate["none"] > estimate["cheap"]) is (tuning == "full")


@pytest.mark.parametrize("family", BACKBONES.values(), ids=lambda family: str(family.title))
def test_layers_of_every_kind_are_estimated(
    family: Backbone, tokenizer: PreTrainedTokenizerBase
) -> None:
    qwen, side = tiny_of(family, tokenizer), family.token_px
    choose_trainable(qwen, ModelConfig(tuning="full"))
    shown = Visual((2, 8, 8), (0.0, -9.0), random_frames(4, 4 * side, 4 * side))
    shown = with_markers(family, shown, "depth")
    answer = "A nodule in the lung. " * 20
    ids, labels = encode_example(tokenizer, answer, shown.grid_thw, markers=shown.markers)
    batch = collate_samples([Sample("study", torch.tensor(ids), torch.tensor(labels), shown)], 0)
    kept = kept_by(qwen, batch, "float32")
    assert 0.95 * kept < activation_bytes(qwen, "float32", len(ids))["none"] < 1.2 * kept


def kept_by(qwen: PreTrainedModel, batch: Any, dtype: str) -> int:  # noqa: ANN401  # a Batch
    """What autograd holds of a forward pass."""
    kept = _SavedBytes(qwen)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"),
        torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor),
    ):
        answer_losses(qwen, batch, "depth")
    return kept.total


def test_branches_that_share_prompts_keep_what_is_estimated(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    qwen = tiny_model(tokenizer).train()
    choose_trainable(qwen, ModelConfig())
    answers, frames = ["A nodule. " * 40] * 2, [random_frames(8, 112, 112, n) for n in range(2)]
    positive = make_batch(tokenizer, answers, frames)
    negative = positive | {"frames": [], "prompt_rows": [1, 0]}
    kept = _SavedBytes(qwen)
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        losses_of_both(qwen, positive, negative, "depth")
    estimate = activation_bytes(
        qwen, "float32", int(positive["attention_mask"].sum()), sharing=True
    )
    alone = activation_bytes(qwen, "float32", int(positive["attention_mask"].sum()))
    # one layer more: that which runs again
    assert kept.total < estimate["none"] < 1.6 * kept.total
    assert all(alone[way] < taken for way, taken in estimate.items())


def test_what_is_held_follows_from_what_learns(tokenizer: PreTrainedTokenizerBase) -> None:
    qwen = tiny_model(tokenizer)
    choose_trainable(qwen, ModelConfig(tuning="lora"))
    learning = [weight for weight in qwen.parameters() if weight.requires_grad]
    numbers = sum(weight.numel() for weight in learning)
    below = 4 * sum(weight.numel() for weight in qwen.parameters())
    assert static_bytes(qwen, "adamw") == below + 12 * numbers
    assert static_bytes(qwen, "adamw_8bit") == below + 6 * numbers
    assert static_bytes(qwen, "adamw", num_processes=2) == below + 16 * numbers
    sums = sum(4 * (weight.shape[0] + weight.shape[1]) for weight in learning)
    assert static_bytes(qwen, "adafactor") == below + 4 * numbers + sums


@pytest.mark.parametrize(
    ("at_hand", "way"),
    [(200, "none"), (150, "cheap"), (130, "layers"), (1, "layers"), (None, "layers")],
)
def test_the_fastest_way_that_fits_is_taken(at_hand: int | None, way: str) -> None:
    estimate = StepMemory(100, {"none": 80, "cheap": 30, "layers": 10}, at_hand, 7)
    assert estimate.first_that_fits() == way


def test_a_run_tells_what_it_takes_and_computes_again_where_memory_is_short(
    tmp_path: Path,
    run: Train,
    pairs_of: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    ways = []
    monkeypatch.setattr(stage, "enable_checkpointing", lambda qwen, way: ways.append(way))
    recipe = make_recipe(train={"epochs": 1, "gradient_checkpointing": "auto"})
    run(tmp_path / "ample", pairs_of["heter"], recipe, told=told.append)
    assert ways == []
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    run(tmp_path / "short", pairs_of["heter"], recipe, told=told.append)
    assert ways == ["layers"]
    assert [line.rsplit(" ", 1)[1] for line in told] == ["false", "true"]
    assert all(line.startswith("Memory: 15 MB for weights, gradients") for line in told)
    ample, short = (weights(tmp_path / name / "best") for name in ("ample", "short"))
    assert all(torch.equal(weight, short[name]) for name, weight in ample.items())
