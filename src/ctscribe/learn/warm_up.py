"""The warm-up stage: trains the vision tower on labels, boxes or masks; out comes a checkpoint.

From report text alone, focal findings are not learned within the time of a demonstration; from
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
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.about import __version__
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    ProgressCallback,
    first_difference,
    object_in,
    read_json,
    sha256_of_file,
    sha256_of_json,
)
from ctscribe.base.locks import one_writer_of
from ctscribe.base.recipe import PhantomConfig, Recipe, SlicesConfig
from ctscribe.base.rows import StudyRow
from ctscribe.base.runs import start_sha256
from ctscribe.data.lesions import Places, read_where
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared, stem
from ctscribe.learn.model.checkpoint import is_complete, load_model, save_model
from ctscribe.learn.model.finding_queries import HEAD_FILE, FindingsHead
from ctscribe.learn.model.presets import PRESETS, build_config, train_tokenizer
from ctscribe.learn.model.teach import Lesson, examine, let_tower_learn, teach, whiten_patches
from ctscribe.learn.model.tower import speed_up_tower
from ctscribe.phantom.dataset import write_dataset
from ctscribe.scan.boxes import boxes_in_frames, reach_of_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.text.labeler import known_labels
from ctscribe.text.prompt import QUESTION, SYSTEM
from ctscribe.text.sections import join_report

_REQUEST = "warm_up.json"
"""File beside the weights: the request, and how well each finding is recognised."""
_HELD_OUT = 0.15
"""Held-out phantoms, as a share of those that are trained on."""
_BURDEN = 0.7
"""About twice CT-RATE's prevalences, so that every finding is frequent among few patients."""
_VIEWS = 2
"""Interleaved sets of slices taken from each phantom, each spaced as in the data set. With slabs
there is one set, because slabs twice as close would be thinner than the data set's."""
_Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
"""A model and its tokenizer."""


@final
@dataclass(frozen=True)
class _Studies:
    """Studies to train on and, of other patients, studies to evaluate on."""

    train: list[StudyRow]
    held_out: list[StudyRow]
    prepared: Prepared
    places: Places
    views: int
    """Interleaved sets of slices that each study's frames are divided into."""


def warm_up(
    out: Path,
    recipe: Recipe,
    prepared: Prepared | None = None,
    where: Path | None = None,
    start: str | Path | None = None,
    *,
    allow_outside: bool = False,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Path:
    """Writes a starting checkpoint whose tower has learned where findings are.

    The studies are prepared ones, or phantoms of patients that no later stage uses. Weights are
    loaded, or (tiny preset) initialised, with a tokenizer trained on the studies' reports. The
    tower is trained with a findings head on labels and, where there are any, boxes or masks. Beside
    the weights are the head and ``warm_up.json`` with each finding's AUROC on held-out patients.

    Args:
        out: The checkpoint's folder; returned at once when it holds the same request.
        recipe: Settings; the sections phantom, volume, slices, pairs, model and warm_up are used.
        prepared: Trains on the training split, evaluates on validation; None draws phantoms.
        where: Boxes or masks; studies without any are trained on their labels alone.
        start: Starting weights, a folder or hub id; None takes the preset's, or new ones.
        allow_outside: See `lesions.read_where`.
        processes: Number of processes that draw and prepare phantoms.
        progress: Called with (done, 1000).

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_SEED`` when the
            patients would be the data set's own, ``E_RECIPE`` where the tower is not read,
            ``E_WEIGHTS``, ``E_PREPARED``, ``E_WHERE``, ``E_MASK``, ``E_EMPTY_SPLIT``, ``E_BUSY``.
    """
    _require_tower(recipe)
    request = request_of(recipe, prepared, where, start)
    with one_writer_of(out):
        if out.exists():
            _require_same(out, request)
        else:
            studies = prepared and _take_studies(prepared, recipe, where, allow_outside)
            weights, studies_dir = _starting_weights(recipe, start), _scratch(out, request)
            if studies is None:
                studies = _draw_studies(studies_dir, recipe, processes, progress)
            learning = _share(progress, 0 if prepared else 450, 980)
            qwen, tokenizer, head, found = _learn(studies, recipe, weights, learning)
            documents = {_REQUEST: {"request": request, **found}}
            save_model(out, qwen, tokenizer, {HEAD_FILE: head.state_dict()}, documents)
            shutil.rmtree(studies_dir, ignore_errors=True)
        progress(1000, 1000)
        return out


def _require_tower(recipe: Recipe) -> None:
    if recipe.model.encoder is not None:
        raise CtscribeError(
            "E_RECIPE",
            "a warm-up teaches the model's own vision tower, but model.encoder has features of "
            f"{recipe.model.encoder} read in its place; their projector and queries learn in "
            "training (model.slice_attention, objective.label_weight)",
        )


def shipped_start(recipe: Recipe) -> Path | None:
    """The checkpoint that comes with ctscribe, if this recipe's warm-up would give the same."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "starts", here.parents[1] / "starts"):
        written = folder / recipe.model.preset
        if _difference(written, request_of(recipe)) is None:
            return written
    return None


def _learn(
    studies: _Studies, recipe: Recipe, weights: _Loaded | None, progress: ProgressCallback
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, FindingsHead, dict[str, Any]]:
    """The trained model, its tokenizer, its head, and the results for ``warm_up.json``."""
    names = [study.volume_name for study in studies.train]
    kept = keep_share(studies.places, names, recipe.warm_up.where_share, recipe.warm_up.seed)
    train = _lessons(studies, studies.train, kept)
    held_out = _lessons(studies, studies.held_out, studies.places)
    reports = [join_report(study.findings, study.impression) for study in studies.train]
    qwen, tokenizer = weights or _new_weights(recipe, reports, train)
    let_tower_learn(qwen, recipe.warm_up, recipe.model)
    if torch.cuda.is_available():
        qwen.to("cuda")
    began = time.monotonic()
    head, losses = teach(qwen, train, recipe.warm_up, progress=progress)
    found = {
        "num_train": len(studies.train),
        "num_held_out": len(studies.held_out),
        "losses": losses,
        "seconds": round(time.monotonic() - began, 1),
        **examine(qwen, head, held_out[:: studies.views]),
    }
    return qwen, tokenizer, head, found


def _lessons(studies: _Studies, some: Sequence[StudyRow], places: Places) -> list[Lesson]:
    """One lesson per view of each study; missing labels are read from the report."""
    lessons = []
    for study in some:
        known = places.get(stem(study.volume_name), ())
        frames = np.array(studies.prepared.frames(study))
        reach = reach_of_frames(study)
        boxes = boxes_in_frames(study, [place.box_mm for place in known])
        findings = tuple(FINDINGS.index(place.finding) for place in known)
        labels = known_labels(study)
        for v in range(studies.views):
            view = slice(v, None, studies.views)
            lessons.append(Lesson(frames[view], reach[view], boxes, findings, labels))
    return lessons


def keep_share(places: Places, names: Sequence[str], share: float, seed: int) -> Places:
    """Places of a random share (0 to 1) of the studies; smaller shares are subsets of larger ones.

    ``places`` are by volume name without suffix; ``names`` may have their suffix.
    """
    order = np.random.default_rng(seed).permutation(len(names))
    kept = (stem(names[i]) for i in order[: round(share * len(names))])
    return {name: places[name] for name in kept if name in places}


def _starting_weights(recipe: Recipe, start: str | Path | None) -> _Loaded | None:
    """Starting weights, loaded before any study is drawn; None where new ones are initialised."""
    if recipe.model.preset == "tiny" and start is None:
        return None
    return load_model(start or recipe.model.preset, recipe.model.dtype)


def _new_weights(recipe: Recipe, reports: Sequence[str], lessons: Sequence[Lesson]) -> _Loaded:
    prompt = ["system", "user", "assistant", SYSTEM, QUESTION]  # once per report in training
    tokenizer = train_tokenizer([*prompt * len(reports), *reports])
    torch.manual_seed(recipe.warm_up.seed)
    qwen = PRESETS[recipe.model.preset].backbone.model(build_config(recipe.model.preset, tokenizer))
    speed_up_tower(qwen)
    whiten_patches(qwen, [torch.from_numpy(lesson.frames.copy()) for lesson in lessons[:64]])
    return qwen, tokenizer


def _draw_studies(
    studies_dir: Path, recipe: Recipe, processes: int, progress: ProgressCallback
) -> _Studies:
    """Draws and prepares the warm-up's own phantoms."""
    views = 1 if recipe.slices.projection == "slab" else _VIEWS
    write_dataset(
        studies_dir / "phantom",
        _phantom(recipe),
        processes=processes,
        progress=_share(progress, 0, 300),
    )
    prepare(
        studies_dir / "phantom",
        studies_dir / "prepared",
        recipe.volume,
        _all_views(recipe.slices, views),
        keep="slices",
        processes=processes,
        progress=_share(progress, 300, 450),
    )
    prepared = Prepared(studies_dir / "prepared")
    train, held_out = (
        [study for study in prepared.studies if study.source_split == split]
        for split in ("train", "valid")
    )
    places = read_where(studies_dir / "phantom" / "truth.jsonl")
    return _Studies(train, held_out, prepared, places, views)


def _all_views(slices: SlicesConfig, views: int) -> SlicesConfig:
    """The slices of all views together; each view keeps the recipe's token budget."""
    budget = slices.token_budget
    return slices.model_copy(
        update={
            "num_slices": views * slices.num_slices,
            "token_budget": None if budget is None else views * budget,
        }
    )


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


def _scratch(out: Path, request: Mapping[str, Any]) -> Path:
    """Folder for phantoms, named by request: another request's may be of other patients."""
    return out.with_name(f"{out.name}-studies-{sha256_of_json(request)[:8]}")


def _take_studies(
    prepared: Prepared, recipe: Recipe, where: Path | None, allow_outside: bool
) -> _Studies:
    prepared.require(recipe)
    train, held_out = prepared.split("train"), prepared.split("validation")
    if not train or not held_out:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"{prepared.folder} must have patients to teach with and others to ask about, but it "
            f"has {len(train)} and {len(held_out)} studies of them",
        )
    places = read_where(where, allow_outside=allow_outside) if where else {}
    return _Studies(train, held_out, prepared, places, 1)


def _share(progress: ProgressCallback, start: int, stop: int) -> ProgressCallback:
    """Maps a stage's progress to the range from ``start`` to ``stop`` of 1000."""

    def told(done: int, total: int) -> None:
        progress(start + (stop - start) * done // max(total, 1), 1000)

    return told


def request_of(
    recipe: Recipe,
    prepared: Prepared | None = None,
    where: Path | None = None,
    start: str | Path | None = None,
) -> dict[str, Any]:
    """Everything that a warm-up's result depends on, as in ``warm_up.json``."""
    sections = {"volume", "slices", "warm_up"} | ({"phantom"} if prepared is None else set())
    knobs: dict[str, Any] = recipe.model_dump(mode="json", include=sections)
    for knob in ("num_train_patients", "num_valid_patients", "burden", "seed"):
        knobs.get("phantom", {}).pop(knob, None)  # they concern the data set's patients only
    model: dict[str, Any] = {"preset": recipe.model.preset}
    if start is not None:
        model["start"] = start_sha256(start)
    if recipe.warm_up.tower == "lora":
        model |= {"lora_r": recipe.model.lora_r, "lora_alpha": recipe.model.lora_alpha}
    request = {**knobs, "model": model, "ctscribe": __version__}
    if prepared is not None:
        request["studies"] = prepared.sha256(prepared.studies)
        request["where"] = _fingerprint(where)
    return request


def _fingerprint(where: Path | None) -> str | None:
    if where is None or not where.exists():
        return None
    if where.is_file():
        return sha256_of_file(where)
    files = sorted(path for path in where.rglob("*") if path.is_file())
    return sha256_of_json([[str(p.relative_to(where)), sha256_of_file(p)] for p in files])


def _require_same(out: Path, request: Mapping[str, Any]) -> None:
    if difference := _difference(out, request):
        raise CtscribeError(
            "E_RUN_EXISTS", f"{out} must be new or hold the same warm-up, but it holds {difference}"
        )


def _difference(folder: Path, request: Mapping[str, Any]) -> str | None:
    """In what a folder differs from the finished result of a request; None where it is that.

    A missing setting counts as its default, so a checkpoint made before a setting existed still
    matches a recipe that leaves it at its default.
    """
    if not is_complete(folder) or not (folder / _REQUEST).exists():
        return "no whole one"
    written = object_in(read_json(folder / _REQUEST), "request")
    changed = first_difference(_without_defaults(written), _without_defaults(request))
    return changed and f"one that differs in {changed}"


def _without_defaults(request: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Recipe().model_dump(mode="json")
    changed = {}
    for section, knobs in request.items():
        if isinstance(knobs, dict):
            usual = defaults[section]
            knobs = {k: v for k, v in knobs.items() if k not in usual or v != usual[k]}
        changed[section] = knobs
    return changed
