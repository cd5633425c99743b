"""What `bench_train` compares: a plain trainer, and ours with its levers added one by one.

All rows train on the same pairs in the same order with the same number type and optimizer, and the
tower is frozen in all but one. The plain ones' loss is CE(positive) − β·min(CE(negative), cap). The
cap lies beyond reach unless a row says otherwise, so every branch has its gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Trainer,
)

from ctscribe.base.recipe import ModelConfig, Recipe
from ctscribe.base.rows import PairRow, StudyRow, write_rows
from ctscribe.data.prepare_volume import write_frames
from ctscribe.data.prepared import STUDIES, Prepared
from ctscribe.learn.model.packing import trim_last_layer
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.tower import patchify, speed_up_tower
from ctscribe.learn.pairs.collate import Batch, PairBatch, collate_pairs
from ctscribe.learn.pairs.dataset import Pair, PairDataset
from ctscribe.learn.train.arguments import training_arguments
from ctscribe.learn.train.scorer import (
    ReportScorer,
    choose_trainable,
    enable_checkpointing,
    learning_rates,
)
from ctscribe.learn.train.stage import visual_source
from ctscribe.learn.train.trainer import PairTrainer
from ctscribe.text.prompt import QUESTION, SYSTEM

BETA, OUT_OF_REACH = 0.1, 100.0
REPORT_WORDS, NUM_SLICES = 290, 10
TEXT = "no nodule mass effusion lung lobe left right upper lower heart normal clear size mm"
Collate = Callable[[Sequence[Pair]], PairBatch]


class Preset(NamedTuple):
    """A model and the slices it is shown."""

    model: str
    side_px: int
    vocab_size: int
    tuning: Literal["full", "lora"]
    dtype: str


PRESETS = {
    "tiny": Preset("tiny", 252, 512, "full", "float32"),
    "50m": Preset("50m", 336, 32768, "full", "float32"),
    "qwen2.5-vl-3b": Preset("qwen2.5-vl-3b", 504, 151936, "lora", "bfloat16"),
    "qwen2.5-vl-7b": Preset("qwen2.5-vl-7b", 504, 152064, "lora", "bfloat16"),
}
"""50m has the 3B's proportions: vocabulary to width 64 (3B 74, 7B 42), tower 36 % of the forward
operations at 336 px. The large ones train adapters: all their weights do not fit one GPU."""


@dataclass(frozen=True)
class Row:
    """Which levers are on; the fields after ``name`` follow the order in which they are added."""

    name: str
    answers_only: bool = True
    """Output layer and loss at answer positions alone."""
    in_turn: bool = True
    """One branch after the other, by `PairTrainer`; off: both graphs held, one backward pass."""
    fast_tower: bool = True
    """Batched windows and a linear patch embedding in the tower."""
    recomputed: Literal["none", "layers", "cheap"] = "none"
    """What the backward pass computes again, as in `scorer.enable_checkpointing`."""
    narrow: bool = True
    """Last decoder layer only where it is read."""
    freeze_tower: bool = True
    """Tower and merger do not learn and run without gradients."""
    stored: bool = True
    """Their features are computed once, before training."""
    max_loss: float = OUT_OF_REACH
    """Nats per token; 0.01 has every negative capped and skipped."""
    adapters: bool = False
    """Adapters on the language side instead of all its weights."""
    at_once: int = 1
    """Pairs in a micro-batch; the others of an update follow."""
    shared: bool = False
    """Prompts of two pairs are read once, as `pairs.mutual` has it."""

    def changes(self) -> list[str]:
        """What makes this row's update another one than the plain trainer's."""
        found = {
            "tower and merger learn too": not self.freeze_tower,
            "negatives lie beyond their cap and have no gradient": self.max_loss < OUT_OF_REACH,
            "adapters learn instead of the language model's weights": self.adapters,
        }
        return [what for what, is_so in found.items() if is_so]


PLAIN = Row(
    "plain", answers_only=False, in_turn=False, fast_tower=False, narrow=False, stored=False
)
PLAIN_AGAIN = replace(PLAIN, name="plain, layers computed again", recomputed="layers")
PLAIN_TWO = replace(PLAIN, name="plain, two pairs at once", at_once=2)
OURS = Row("ours")
SHARED = Row("ours, prompts shared", at_once=2, shared=True)
SHARED_CHEAP = replace(
    SHARED, name="ours, prompts shared, what is cheap computed again", recomputed="cheap"
)
SHARED_AGAIN = replace(
    SHARED, name="ours, prompts shared, layers computed again", recomputed="layers"
)
SKIPPED = replace(SHARED, name="ours, prompts shared, every negative skipped", max_loss=0.01)
COMPARED = (PLAIN, PLAIN_TWO, PLAIN_AGAIN, OURS, SHARED, SHARED_CHEAP, SHARED_AGAIN, SKIPPED)
"""What a user chooses between; measured in turn, more than once."""
ONCE = (
    _answers := replace(PLAIN, name="plain, answer positions alone", answers_only=True),
    replace(_answers, name="and in turn, last layer where read", in_turn=True, narrow=True),
    replace(OURS, name="ours, two pairs at once", at_once=2),
    replace(OURS, name="ours, what is cheap computed again", recomputed="cheap"),
    replace(OURS, name="ours, layers computed again", recomputed="layers"),
    replace(PLAIN_AGAIN, name="plain, layers computed again, tower learns", freeze_tower=False),
    replace(SHARED, name="ours, prompts shared, adapters", adapters=True),
)
"""Levers on the way from the first row to `OURS`, and two rows more."""


class Together(Trainer):  # type: ignore[misc]
    """Both branches in one graph, by a loss of each: Hugging Face's own, or our answer losses."""

    def __init__(self, loss_of: Callable[[nn.Module, Any], Tensor], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.model_accepts_loss_kwargs = False  # divide each micro-batch's mean
        self._loss_of = loss_of

    def compute_loss(self, model: nn.Module, inputs: Any, **_: Any) -> Tensor:
        positive, negative = (self._loss_of(model, inputs[n]) for n in ("positive", "negative"))
        return torch.sub(positive, BETA * negative.clamp(max=OUT_OF_REACH))


def make(
    preset: Preset, row: Row, pairs_per_update: int, num_pairs: int, folder: Path
) -> tuple[Trainer, tuple[float, float]]:
    """The trainer that a row measures, and what storing features took.

    The latter in seconds per volume, by the clock and of CPU; 0 where none are stored.
    """
    tokenizer = train_tokenizer([SYSTEM, QUESTION, TEXT] * 3, vocab_size=500)
    recipe = recipe_of(preset, row, pairs_per_update)
    qwen = model_of(preset, row, recipe.model, tokenizer)
    prepared, pairs = made_up(folder, num_pairs, preset.side_px)
    source_recipe = recipe_of(preset, replace(row, freeze_tower=row.stored), pairs_per_update)
    began = perf_counter(), process_time()
    visual = visual_source(qwen, prepared, pairs, source_recipe)
    took = (perf_counter() - began[0], process_time() - began[1])
    stored_s = (took[0] / num_pairs, took[1] / num_pairs) if row.stored else (0.0, 0.0)
    dataset = PairDataset(prepared.by_name, pairs, tokenizer, visual, 10**6)
    collate = partial(collate_pairs, pad_id=int(tokenizer.pad_token_id), sharing=row.shared)
    return trainer_of(row, qwen, recipe, folder / "run", dataset, collate), stored_s


def model_of(
    preset: Preset, row: Row, config: ModelConfig, tokenizer: PreTrainedTokenizerBase
) -> Qwen2_5_VLForConditionalGeneration:
    """A random model with the row's levers on the model itself."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        qwen = Qwen2_5_VLForConditionalGeneration(config_of(preset, tokenizer))
    qwen.to(getattr(torch, preset.dtype))
    if row.fast_tower:
        speed_up_tower(qwen)
    choose_trainable(qwen, config)
    if row.narrow:
        trim_last_layer(qwen)
    if row.recomputed != "none":
        enable_checkpointing(qwen, row.recomputed)
    return qwen


def trainer_of(
    row: Row,
    qwen: Qwen2_5_VLForConditionalGeneration,
    recipe: Recipe,
    run_dir: Path,
    dataset: PairDataset,
    collate: Collate,
) -> Trainer:
    shared: dict[str, Any] = {"args": training_arguments(run_dir, recipe), "train_dataset": dataset}
    if not row.answers_only:
        as_wanted = partial(collate_plain, collate, int(qwen.config.video_token_id))
        return Together(
            lambda model, branch: model(**branch).loss,
            model=qwen,
            data_collator=as_wanted,
            **shared,
        )
    shared |= {"model": ReportScorer(qwen, "index"), "data_collator": collate}
    if not row.in_turn:
        return Together(lambda model, branch: model(branch).per_sample().mean(), **shared)
    return PairTrainer(objective=recipe.objective, rates=learning_rates(recipe.train), **shared)


def collate_plain(
    collate: Collate, video_token_id: int, pairs: Sequence[Pair]
) -> dict[str, dict[str, Tensor]]:
    """A batch as the library wants it."""

    def as_wanted(batch: Batch) -> dict[str, Any]:
        return {
            **{name: batch[name] for name in ("input_ids", "attention_mask", "labels")},
            "pixel_values_videos": torch.cat(
                [patchify(frames, QWEN2_5_VL)[0] for frames in batch["frames"]]
            ),
            "video_grid_thw": batch["video_grid_thw"],
            "second_per_grid_ts": torch.ones(len(batch["labels"])),
            "mm_token_type_ids": (batch["input_ids"] == video_token_id).int() * 2,
            "use_cache": False,
        }

    batch = collate(pairs)
    assert batch["negative"] is not None
    return {"positive": as_wanted(batch["positive"]), "negative": as_wanted(batch["negative"])}


def config_of(preset: Preset, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Dimensions; the vocabulary is larger than the tokenizer's, as in the real models."""
    config = build_config("tiny" if preset.model == "50m" else preset.model, tokenizer)
    if preset.model == "50m":
        text, tower = config.text_config.to_dict(), config.vision_config.to_dict()
        text |= {"hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 8}
        text |= {"num_attention_heads": 8, "num_key_value_heads": 2, "initializer_range": 0.02}
        text["rope_parameters"] |= {"mrope_section": [8, 12, 12]}
        text.pop("layer_types")
        tower |= {"hidden_size": 256, "intermediate_size": 684, "depth": 8, "num_heads": 4}
        tower |= {"out_hidden_size": 512, "fullatt_block_indexes": [1, 3, 5, 7]}
        whole = config.to_dict() | {"text_config": text, "vision_config": tower}
        config = Qwen2_5_VLConfig(**whole)
    config.text_config.vocab_size = preset.vocab_size
    return config


def recipe_of(preset: Preset, row: Row, pairs_per_update: int) -> Recipe:
    tuning = "lora" if row.adapters else preset.tuning
    frozen = {"freeze_tower": row.freeze_tower, "freeze_merger": row.freeze_tower}
    return Recipe.model_validate(
        {
            "pairs": {"strategy": "heter", "mutual": row.shared},
            "model": {"dtype": preset.dtype, "tuning": tuning, **frozen},
            "objective": {"beta": BETA, "max_loss": row.max_loss},
            "train": {
                "pairs_per_device": row.at_once,
                "gradient_accumulation_steps": pairs_per_update // row.at_once,
                # never reached: the norm is that of other weights where the tower is frozen
                "max_grad_norm": 1e9,
                "warmup_ratio": 0.0,
            },
        }
    )


def made_up(folder: Path, num_pairs: int, side_px: int) -> tuple[Prepared, list[PairRow]]:
    """Studies of random frames with reports of random words; two are each other's negative."""
    rng = np.random.default_rng(0)
    names = [f"train_{number}_a_1.nii.gz" for number in range(num_pairs)]
    studies, pairs = [], []
    for number, name in enumerate(names):
        frames = rng.integers(0, 256, (NUM_SLICES, side_px, side_px, 3)).astype(np.uint8)
        write_frames(folder, name, frames, {})
        studies.append(_study(name, " ".join(rng.choice(TEXT.split(), REPORT_WORDS))))
        pairs.append(PairRow(study=name, role="positive", volume=name))
        pairs.append(PairRow(study=name, role="negative", volume=names[number ^ 1]))
    write_rows(folder / STUDIES, studies)
    return Prepared(folder), pairs


def _study(name: str, findings: str) -> StudyRow:
    row: dict[str, Any] = {"volume_name": name, "patient_id": name[:-11], "scan_id": name[:-9]}
    row |= {"findings": findings, "impression": "normal", "labels": (0,) * 18}
    row |= {"source_split": "train", "split": "train"}
    row |= {"spacing_mm": (1.0, 1.0, 1.0), "shape_xyz": (1, 1, NUM_SLICES)}
    row |= {"slice_indices": tuple(range(NUM_SLICES)), "frame_to_ras": np.eye(4).tolist()}
    row |= {"position_mm": tuple(-20.0 * z for z in range(NUM_SLICES))}
    return StudyRow.model_validate(row)
