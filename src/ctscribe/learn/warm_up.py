"""The stage: studies with labels, boxes or masks in, a starting checkpoint out.

From report text alone, focal findings are not learned in any time a demonstration has; from
lesion boxes they are.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.about import __version__
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, read_json, sha256_of_file, sha256_of_json
from ctscribe.base.recipe import PhantomConfig, Recipe, SlicesConfig
from ctscribe.base.rows import StudyRow
from ctscribe.data.lesions import Place, Places, read_where
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import STUDIES, Prepared, stem
from ctscribe.learn.model.checkpoint import is_complete, load_model, save_model
from ctscribe.learn.model.fast import speed_up_tower
from ctscribe.learn.model.finding_queries import FindingsHead
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.learn.model.teach import Look, examine, let_tower_learn, teach, whiten_patches
from ctscribe.phantom.dataset import write_dataset
from ctscribe.scan.boxes import boxes_in_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import label_report
from ctscribe.text.prompt import QUESTION, SYSTEM
from ctscribe.text.sections import join_report


def shipped_start(recipe: Recipe) -> Path | None:
    """The starting checkpoint that comes with ctscribe, where this recipe would make the same."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "starts", here.parents[1] / "starts"):
        written = folder / recipe.model.preset / "warm_up.json"
        if is_complete(written.parent) and _same(read_json(written)["request"], request_of(recipe)):
            return written.parent
    return None


def request_of(
    recipe: Recipe,
    prepared: Prepared | None = None,
    where: Path | None = None,
    start: str | Path | None = None,
) -> dict[str, Any]:
    """Everything that decides the result."""
    sections = {"volume", "slices", "warm_up"} | ({"phantom"} if prepared is None else set())
    asked: dict[str, Any] = recipe.model_dump(mode="json", include=sections)
    for knob in ("num_train_patients", "num_valid_patients", "burden", "seed"):
        asked.get("phantom", {}).pop(knob, None)  # of the data set, not of these patients
    model: dict[str, Any] = {"preset": recipe.model.preset}
    if start is not None:
        model["start"] = str(start)
    if recipe.warm_up.tower == "lora":
        model |= {"lora_r": recipe.model.lora_r, "lora_alpha": recipe.model.lora_alpha}
    request = {**asked, "model": model, "ctscribe": __version__}
    if prepared is not None:
        request["studies"] = sha256_of_file(prepared.folder / STUDIES)
        request["where"] = _fingerprint(where)
    return request


def _fingerprint(where: Path | None) -> str | None:
    if where is None or not where.exists():
        return None
    if where.is_file():
        return sha256_of_file(where)
    files = sorted(path for path in where.rglob("*") if path.is_file())
    return sha256_of_json([[str(p.relative_to(where)), p.stat().st_size] for p in files])


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two requests ask for the same; a knob at its default may go without saying.

    So a checkpoint made before a knob existed is still what a recipe without that knob wants.
    """
    return _spoken(first) == _spoken(second)


def _spoken(request: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Recipe().model_dump(mode="json")
    spoken = {}
    for section, asked in request.items():
        if isinstance(asked, dict):
            usual = defaults[section]
            asked = {k: v for k, v in asked.items() if k not in usual or v != usual[k]}
        spoken[section] = asked
    return spoken


def check_same(out: Path, request: Mapping[str, Any]) -> None:
    """Refuses a folder that holds anything but the finished answer to this request.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``.
    """
    written = out / "warm_up.json"
    if is_complete(out) and written.exists() and _same(read_json(written)["request"], request):
        return
    raise CtscribeError(
        "E_RUN_EXISTS",
        f"{out} must be new or hold the same warm-up, but it holds something else",
    )


def read_looks(
    prepared: Prepared,
    studies: Sequence[StudyRow],
    places: Mapping[str, tuple[Place, ...]],
    views: int,
) -> list[Look]:
    """Frames, labels and boxes, `views` looks a study, one after the other.

    Args:
        prepared: Holds the studies.
        studies: Labels that are not in them are read off their reports.
        places: Lesions of those studies whose lesions are known.
        views: Interleaved sets of slices a study's frames are dealt out to.
    """
    looks = []
    for study in studies:
        known = places.get(stem(study.volume_name), ())
        frames = np.array(prepared.frames(study))
        boxes = boxes_in_frames(study, [place.box_mm for place in known])
        findings = tuple(FINDINGS.index(place.finding) for place in known)
        labels = study.labels or label_report(join_report(study.findings, study.impression))
        looks += [
            Look(frames[v::views], study.slice_indices[v::views], boxes, findings, labels)
            for v in range(views)
        ]
    return looks


def keep_share(
    places: Mapping[str, tuple[Place, ...]], names: Sequence[str], share: float, seed: int
) -> dict[str, tuple[Place, ...]]:
    """Places of a share of the studies, drawn by seed; a smaller share is part of a larger one.

    Args:
        places: By volume name without its suffix.
        names: Of the studies, suffix or not.
        share: 0 to 1.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(names))
    kept = (stem(names[i]) for i in order[: round(share * len(names))])
    return {name: places[name] for name in kept if name in places}


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
    prepared: Prepared
    places: Places
    views: int


def warm_up(
    out: Path,
    recipe: Recipe,
    prepared: Prepared | None = None,
    where: Path | None = None,
    start: str | Path | None = None,
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
        prepared: Its training split teaches, its validation split asks. None draws phantoms that
            no later stage meets.
        where: Boxes or masks, see `lesions.read_where`; other studies teach by their labels.
        start: Weights to begin with: a folder or hub id; None takes the preset's, or new ones.
        processes: For drawing and preparing.
        progress: Told (done, of 1000).

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_SEED`` when the
            patients would be the data set's own, ``E_WHERE``, ``E_MASK``, ``E_EMPTY_SPLIT``.
    """
    request = request_of(recipe, prepared, where, start)
    if out.exists():
        check_same(out, request)
        progress(1000, 1000)
        return out
    studies_dir = out.with_name(f"{out.name}-studies")
    if prepared is None:
        lessons = _draw_studies(studies_dir, recipe, processes, progress)
    else:
        prepared.require(recipe)
        lessons = _take_studies(prepared, where)
    qwen, tokenizer, head, found = _learn(lessons, recipe, start, _part(progress, 450, 980))
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
    lessons: _Lessons, recipe: Recipe, start: str | Path | None, progress: ProgressCallback
) -> tuple[
    Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase, FindingsHead, dict[str, Any]
]:
    """The taught model, its tokenizer, its head, and what it was taught and sees."""
    names = [study.volume_name for study in lessons.train]
    knobs = recipe.warm_up
    kept = keep_share(lessons.places, names, knobs.where_share, knobs.seed)
    train = read_looks(lessons.prepared, lessons.train, kept, lessons.views)
    held_out = read_looks(lessons.prepared, lessons.held_out, lessons.places, lessons.views)
    reports = [join_report(study.findings, study.impression) for study in lessons.train]
    qwen, tokenizer = _starting_point(recipe, start, reports, train)
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
    prepared = Prepared(studies_dir / "prepared")
    train, held_out = (
        [study for study in prepared.studies if study.source_split == split]
        for split in ("train", "valid")
    )
    places = read_where(studies_dir / "phantom" / "truth.jsonl")
    return _Lessons(train, held_out, prepared, places, _VIEWS)


def _take_studies(prepared: Prepared, where: Path | None) -> _Lessons:
    train, held_out = prepared.split("train"), prepared.split("validation")
    if not train or not held_out:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"{prepared.folder} must have patients to teach with and others to ask about, but it "
            f"has {len(train)} and {len(held_out)} studies of them",
        )
    return _Lessons(train, held_out, prepared, read_where(where) if where else {}, 1)


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
    recipe: Recipe, start: str | Path | None, reports: Sequence[str], looks: Sequence[Look]
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerBase]:
    model = recipe.model
    if model.preset == "tiny" and start is None:
        prompt = ["system", "user", "assistant", SYSTEM, QUESTION]  # once per report in training
        tokenizer = train_tokenizer([*prompt * len(reports), *reports])
        torch.manual_seed(recipe.warm_up.seed)
        qwen = Qwen2_5_VLForConditionalGeneration(build_config(model.preset, tokenizer))
        speed_up_tower(qwen)
        whiten_patches(qwen, [torch.from_numpy(look.frames.copy()) for look in looks[:64]])
    else:
        qwen, tokenizer = load_model(start or model.preset, model.dtype)
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
