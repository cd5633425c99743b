"""The stage: studies with labels, boxes or masks in, a starting checkpoint out.

From report text alone, focal findings are not learned in any time a demonstration has; from
lesion boxes they are.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.config import PhantomConfig, Recipe, SlicesConfig
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback
from ctscribe.model.checkpoint import load_model, save_model
from ctscribe.model.fast_tower import speed_up_tower
from ctscribe.model.findings_head import FindingsHead
from ctscribe.model.presets import HUB_IDS, build_config
from ctscribe.model.teach import Look, examine, teach
from ctscribe.model.tokenizer import train_tokenizer
from ctscribe.model.tower import let_tower_learn
from ctscribe.model.whitening import whiten_patches
from ctscribe.pairs.splits import studies_of
from ctscribe.phantom.dataset import write_dataset
from ctscribe.prepare import prepare
from ctscribe.reports.prompt import QUESTION, SYSTEM
from ctscribe.reports.sections import join_report
from ctscribe.rows import StudyRow, read_rows
from ctscribe.slices.where import Places, read_where
from ctscribe.warm_up.looks import keep_share, read_looks
from ctscribe.warm_up.request import check_same, request_of

_HELD_OUT = 0.15
_BURDEN = 0.7
"""About twice CT-RATE's prevalences, so that few patients show every finding often enough."""
_VIEWS = 2
"""Interleaved sets of slices read from each volume; each is spaced as in the data set."""


@final
@dataclass(frozen=True)
class _Lessons:
    """What is taught and what is asked afterwards; of other patients."""

    train: list[StudyRow]
    held_out: list[StudyRow]
    prepared_dir: Path
    places: Places
    views: int


def warm_up(
    out: Path,
    recipe: Recipe,
    prepared_dir: Path | None = None,
    where: Path | None = None,
    *,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Path:
    """Writes a starting checkpoint whose tower knows where findings are.

    Takes prepared studies or draws phantom patients; trains a tokenizer on their reports (tiny
    preset) or reads the preset's weights; trains the tower with a findings head on labels, and on
    boxes or masks where there are any. ``warm_up.json`` in the checkpoint tells how well it sees
    each finding of patients held out; ``findings_head.safetensors`` holds the head.

    Args:
        out: The checkpoint's folder; returned at once when it holds the same request.
        recipe: Its phantom, volume, slices, pairs, model and warm_up sections matter.
        prepared_dir: What `prepare` wrote; its training split teaches, its validation split asks.
            None draws phantoms that no later stage meets.
        where: Boxes or masks, see `where.read_where`; other studies teach by their labels.
        processes: For drawing and preparing.
        progress: Told (done, of 1000).

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_SEED`` when the
            patients would be the data set's own, ``E_WHERE``, ``E_MASK``, ``E_EMPTY_SPLIT``.
    """
    request = request_of(recipe, prepared_dir, where)
    if out.exists():
        check_same(out, request)
        progress(1000, 1000)
        return out
    studies_dir = out.with_name(f"{out.name}-studies")
    if prepared_dir is None:
        lessons = _draw_studies(studies_dir, recipe, processes, progress)
    else:
        lessons = _take_studies(prepared_dir, where, recipe)
    qwen, tokenizer, head, found = _learn(lessons, recipe, _part(progress, 450, 980))
    save_model(
        out,
        qwen,
        tokenizer,
        {"findings_head.safetensors": head.state_dict()},
        {"warm_up.json": {"request": request, **found}},
    )
    shutil.rmtree(studies_dir, ignore_errors=True)
    progress(1000, 1000)
    return out


def _learn(
    lessons: _Lessons, recipe: Recipe, progress: ProgressCallback
) -> tuple[
    Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase, FindingsHead, dict[str, Any]
]:
    """The taught model, its tokenizer, its head, and what it was taught and sees."""
    names = [study.volume_name for study in lessons.train]
    knobs = recipe.warm_up
    kept = keep_share(lessons.places, names, knobs.where_share, knobs.seed)
    train = read_looks(lessons.prepared_dir, lessons.train, kept, lessons.views)
    held_out = read_looks(lessons.prepared_dir, lessons.held_out, lessons.places, lessons.views)
    reports = [join_report(study.findings, study.impression) for study in lessons.train]
    qwen, tokenizer = _starting_point(recipe, reports, train)
    began = time.monotonic()
    learned = teach(qwen, train, **_lesson_knobs(recipe), progress=progress)
    found = {
        "num_train": len(lessons.train),
        "num_held_out": len(lessons.held_out),
        "losses": learned.losses,
        "seconds": round(time.monotonic() - began, 1),
        **examine(qwen, learned.head, held_out[:: lessons.views]),
    }
    return qwen, tokenizer, learned.head, found


def _draw_studies(
    studies_dir: Path, recipe: Recipe, processes: int, progress: ProgressCallback
) -> _Lessons:
    """Phantoms of the warm-up's own, prepared."""
    write_dataset(
        studies_dir / "phantom",
        _phantom(recipe),
        processes=processes,
        progress=_part(progress, 0, 300),
    )
    prepare(
        studies_dir / "phantom",
        studies_dir / "prepared",
        recipe.volume,
        _slices(recipe),
        keep="slices",
        processes=processes,
        progress=_part(progress, 300, 450),
    )
    studies = read_rows(studies_dir / "prepared" / "studies.jsonl", StudyRow)
    train, held_out = (
        [study for study in studies if study.source_split == split] for split in ("train", "valid")
    )
    places = read_where(studies_dir / "phantom" / "truth.jsonl")
    return _Lessons(train, held_out, studies_dir / "prepared", places, _VIEWS)


def _take_studies(prepared_dir: Path, where: Path | None, recipe: Recipe) -> _Lessons:
    studies = read_rows(prepared_dir / "studies.jsonl", StudyRow)
    fraction = recipe.pairs.validation_fraction
    train, held_out = (
        studies_of(studies, "train", fraction),
        studies_of(studies, "validation", fraction),
    )
    if not train or not held_out:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"{prepared_dir} must have patients to teach with and others to ask about, but it has "
            f"{len(train)} and {len(held_out)} studies of them",
        )
    return _Lessons(train, held_out, prepared_dir, read_where(where) if where else {}, 1)


def _phantom(recipe: Recipe) -> PhantomConfig:
    if recipe.warm_up.seed == recipe.phantom.seed:
        raise CtscribeError(
            "E_SEED",
            "the warm-up must meet other patients than the data set, but warm_up.seed and "
            f"phantom.seed are both {recipe.phantom.seed}",
        )
    held_out = max(1, round(_HELD_OUT * recipe.warm_up.num_patients))
    return recipe.phantom.model_copy(
        update={
            "num_train_patients": recipe.warm_up.num_patients,
            "num_valid_patients": held_out,
            "second_reconstruction": 0.0,
            "burden": _BURDEN,
            "seed": recipe.warm_up.seed,
        }
    )


def _slices(recipe: Recipe) -> SlicesConfig:
    """Those of all views together, each view within the recipe's budget of tokens."""
    budget = recipe.slices.token_budget
    return recipe.slices.model_copy(
        update={
            "num_slices": _VIEWS * recipe.slices.num_slices,
            "token_budget": None if budget is None else _VIEWS * budget,
        }
    )


def _lesson_knobs(recipe: Recipe) -> dict[str, Any]:
    names = {"epochs", "batch_size", "learning_rate", "seed", "attention_weight"}
    return recipe.warm_up.model_dump(include=names)


def _part(progress: ProgressCallback, start: int, stop: int) -> ProgressCallback:
    """A stage's own progress as a share of 1000."""

    def told(done: int, total: int) -> None:
        progress(start + (stop - start) * done // max(total, 1), 1000)

    return told


def _starting_point(
    recipe: Recipe, reports: Sequence[str], looks: Sequence[Look]
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    model = recipe.model
    if model.preset == "tiny" and model.weights is None:
        prompt = ["system", "user", "assistant", SYSTEM, QUESTION]  # once per report in training
        tokenizer = train_tokenizer([*prompt * len(reports), *reports])
        torch.manual_seed(recipe.warm_up.seed)
        qwen = Qwen2_5_VLForConditionalGeneration(build_config(model.preset, tokenizer))
        speed_up_tower(qwen)
        whiten_patches(qwen, [torch.from_numpy(look.frames.copy()) for look in looks[:64]])
    else:
        qwen, tokenizer = load_model(model.weights or HUB_IDS[model.preset], model.dtype)
    let_tower_learn(
        qwen,
        recipe.warm_up.tower,
        last_blocks=recipe.warm_up.last_blocks,
        lora_r=model.lora_r,
        lora_alpha=model.lora_alpha,
    )
    if torch.cuda.is_available():
        qwen.to("cuda")
    return qwen, tokenizer
