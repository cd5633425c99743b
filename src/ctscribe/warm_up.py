"""Look first, then write: the tower learns where findings are, before any report is read.

From report text alone, focal findings are not learned in any time a demonstration has; from
lesion boxes they are. The studies are phantoms of their own seed, and no later stage meets them.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe import __version__
from ctscribe.config import PhantomConfig, Recipe, SlicesConfig
from ctscribe.errors import CtscribeError
from ctscribe.files import ProgressCallback, read_json
from ctscribe.model.checkpoint import is_complete, load_model, save_model
from ctscribe.model.fast_tower import speed_up_tower
from ctscribe.model.presets import HUB_IDS, build_config
from ctscribe.model.teach import Look, examine, teach
from ctscribe.model.tokenizer import train_tokenizer
from ctscribe.model.whitening import whiten_patches
from ctscribe.phantom.dataset import write_dataset
from ctscribe.prepare import prepare
from ctscribe.reports.findings import FINDINGS
from ctscribe.reports.prompt import QUESTION, SYSTEM
from ctscribe.reports.sections import join_report
from ctscribe.rows import StudyRow, TruthRow, read_rows
from ctscribe.slices.boxes import boxes_in_frames
from ctscribe.slices.cache import read_frames

_HELD_OUT = 0.15
_BURDEN = 0.7
"""About twice CT-RATE's prevalences, so that few patients show every finding often enough."""
_VIEWS = 2
"""Interleaved sets of slices read from each volume; each is spaced as in the data set."""


def warm_up(
    out: Path,
    recipe: Recipe,
    *,
    processes: int = 1,
    progress: ProgressCallback = lambda done, total: None,
) -> Path:
    """Writes a starting checkpoint whose tower knows where findings are.

    Draws phantom patients, prepares their slices, trains a tokenizer on their reports (tiny
    preset) or reads the preset's weights, trains the tower with a findings head on boxes and
    labels, and tests it on patients held out. ``warm_up.json`` in the checkpoint tells how well it
    sees each finding; ``findings_head.safetensors`` holds the head.

    Args:
        out: The checkpoint's folder; returned at once when it holds the same request.
        recipe: Its phantom, volume, slices, model and warm_up sections matter.
        processes: For drawing and preparing.
        progress: Told (done, of 1000).

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when ``out`` holds something else, ``E_SEED`` when the
            patients would be the data set's own.
    """
    request = _request(recipe)
    if out.exists():
        _check_same(out, request)
        progress(1000, 1000)
        return out
    studies_dir = out.with_name(f"{out.name}-studies")
    prepared = _draw_studies(studies_dir, recipe, processes, progress)
    studies = read_rows(prepared / "studies.jsonl", StudyRow)
    train, held_out = (
        read_looks(studies_dir, [s for s in studies if s.source_split == split])
        for split in ("train", "valid")
    )
    reports = [join_report(s.findings, s.impression) for s in studies if s.source_split == "train"]
    qwen, tokenizer = _starting_point(recipe, reports, train)
    began = time.monotonic()
    knobs = recipe.warm_up.model_dump(exclude={"num_patients"})
    learned = teach(qwen, train, **knobs, progress=_part(progress, 450, 980))
    seconds = round(time.monotonic() - began, 1)
    report = {
        "request": request,
        "num_train": len(train) // _VIEWS,
        "num_held_out": len(held_out) // _VIEWS,
        "losses": learned.losses,
        "seconds": seconds,
        **examine(qwen, learned.head, held_out[::_VIEWS]),
    }
    save_model(
        out,
        qwen,
        tokenizer,
        {"findings_head.safetensors": learned.head.state_dict()},
        {"warm_up.json": report},
    )
    shutil.rmtree(studies_dir)
    progress(1000, 1000)
    return out


def _draw_studies(
    studies_dir: Path, recipe: Recipe, processes: int, progress: ProgressCallback
) -> Path:
    """Phantoms of the warm-up's own, and the folder with their prepared slices."""
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
    return studies_dir / "prepared"


def shipped_start(recipe: Recipe) -> Path | None:
    """The starting checkpoint that comes with ctscribe, where this recipe would make the same."""
    here = Path(__file__).resolve().parent
    for folder in (here / "starts", here.parents[1] / "starts"):
        written = folder / recipe.model.preset / "warm_up.json"
        if is_complete(written.parent) and read_json(written)["request"] == _request(recipe):
            return written.parent
    return None


def read_looks(studies_dir: Path, studies: Sequence[StudyRow]) -> list[Look]:
    """Frames and truth of prepared phantoms, `_VIEWS` looks a study, one after the other."""
    truth = {
        row.volume_name: row for row in read_rows(studies_dir / "phantom" / "truth.jsonl", TruthRow)
    }
    looks = []
    for study in studies:
        lesions = truth[study.volume_name].lesions
        frames = np.array(read_frames(studies_dir / "prepared", study.volume_name))
        boxes = boxes_in_frames(study, [lesion.box_mm for lesion in lesions])
        findings = tuple(FINDINGS.index(lesion.finding) for lesion in lesions)
        labels = study.labels or (0,) * len(FINDINGS)
        looks += [
            Look(frames[v::_VIEWS], study.slice_indices[v::_VIEWS], boxes, findings, labels)
            for v in range(_VIEWS)
        ]
    return looks


def _request(recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the result."""
    sections = {"phantom", "volume", "slices", "warm_up"}
    asked: dict[str, Any] = recipe.model_dump(mode="json", include=sections)
    for knob in ("num_train_patients", "num_valid_patients", "burden", "seed"):
        del asked["phantom"][knob]  # of the data set, not of these patients
    model = {"preset": recipe.model.preset, "weights": recipe.model.weights}
    return {**asked, "model": model, "ctscribe": __version__}


def _check_same(out: Path, request: Mapping[str, Any]) -> None:
    written = out / "warm_up.json"
    if is_complete(out) and written.exists() and read_json(written)["request"] == request:
        return
    raise CtscribeError(
        "E_RUN_EXISTS",
        f"{out} must be new or hold the same warm-up, but it holds something else; "
        "choose another folder or remove it",
    )


def _phantom(recipe: Recipe) -> PhantomConfig:
    if recipe.warm_up.seed == recipe.phantom.seed:
        raise CtscribeError(
            "E_SEED",
            "the warm-up must meet other patients than the data set, but warm_up.seed and "
            f"phantom.seed are both {recipe.phantom.seed}; change one",
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
    return recipe.slices.model_copy(update={"num_slices": _VIEWS * recipe.slices.num_slices})


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
    if torch.cuda.is_available():
        qwen.to("cuda")
    return qwen, tokenizer
