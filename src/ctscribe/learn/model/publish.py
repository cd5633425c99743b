"""Exports a run's best weights for other tools (transformers, vLLM, SGLang, PEFT)."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import read_json, write_plain_json, writing
from ctscribe.base.recipe import Recipe
from ctscribe.learn.model.adapters import ADAPTERS, adapter_state, merge_adapters
from ctscribe.learn.model.backbone import MERGE, Backbone
from ctscribe.learn.model.checkpoint import (
    MARKER,
    is_complete,
    load_model,
    read_adapter_config,
    require_whole,
    save_model,
)
from ctscribe.learn.model.families import backbone_in, backbone_of, with_markers
from ctscribe.learn.model.finding_queries import finding_queries_of
from ctscribe.learn.model.presets import HUB_IDS
from ctscribe.learn.model.qwen import answer_losses
from ctscribe.learn.pairs.collate import collate_samples
from ctscribe.learn.pairs.dataset import Sample, Visual
from ctscribe.scan.frames import WINDOWS, noise_frames
from ctscribe.text.findings import FINDINGS
from ctscribe.text.prompt import (
    CUE,
    QUESTION,
    SYSTEM,
    VIDEO_BLOCK,
    VIDEO_PAD,
    encode_example,
    without_thinking,
)
from ctscribe.text.sections import join_report
from ctscribe.text.template import write_template

ABOUT = "ctscribe.json"
"""File with what a client of such a server must know: prompt, slices, positions."""


@final
@dataclass(frozen=True)
class Merging:
    """Effect of merging adapters: mean cross entropy of stock reports on noise, nats per token."""

    num_reports: int
    cross_entropy_before: float
    """With the adapters as they were trained."""
    cross_entropy_after: float
    """With merged weights, in the exported dtype."""


def publish(
    best: Path,
    out: Path,
    what: Literal["merged", "adapters"],
    recipe: Recipe,
    base: str | None = None,
) -> Merging | None:
    """Writes a run's best weights into a new folder, with `ABOUT` for clients.

    ``merged`` writes whole weights, ``adapters`` the adapters alone, in PEFT's format. Their base
    weights are ``base``, by default the public weights of the recipe's preset.

    Returns:
        The effect of merging; None without adapters to merge.

    Raises:
        CtscribeError: ``E_EXPORT`` when the model has finding queries, or when adapters are asked
            for and there are none, more was trained, or their base weights are unknown;
            ``E_WEIGHTS`` without complete weights, ``E_EXISTS`` when ``out`` holds something,
            ``E_WRITE`` when it cannot be written.
    """
    if recipe.model.slice_attention:
        raise CtscribeError(
            "E_EXPORT",
            "an exported model must be its published class alone, but model.slice_attention "
            "re-weights its slices and no other tool does",
        )
    about = _about(recipe)
    if what == "merged":
        return publish_merged(best, out, recipe.model.dtype, about)
    if not (recipe.model.freeze_tower and recipe.model.freeze_merger) or recipe.model.encoder:
        raise CtscribeError(
            "E_EXPORT",
            "adapters alone must be all that was trained, but the vision tower, its merger or an "
            "encoder's projector learned too",
        )
    _publish_adapters(best, out, base or _base_of(best, recipe), about)
    return None


def places_depth_itself(best: Path) -> bool:
    """Whether the depth of slices is in our position ids, not in the prompt's text."""
    return backbone_in(best).markers((0.0,), "depth") is None


def _about(recipe: Recipe) -> dict[str, Any]:
    """The prompt, and how frames are made, for `ABOUT`."""
    slices = recipe.slices
    return {
        "use": RESEARCH_USE,
        "system": SYSTEM,
        "question": QUESTION,
        "cue": CUE if recipe.model.cues else None,
        "positions": recipe.model.positions,
        "encoder": recipe.model.encoder,
        "num_slices": slices.num_slices,
        "frame_size_px": slices.frame_size_px,
        "token_budget": slices.token_budget,
        "windows": slices.windows,
        "projection": slices.projection,
        "slab_mm": slices.slab_mm if slices.projection == "slab" else None,
        "spacing_mm": recipe.volume.spacing_mm,
        "frames_per_second": 2.0,
    }


def publish_merged(
    best: Path, out: Path, dtype: torch.dtype | str, about: Mapping[str, Any]
) -> Merging | None:
    """Writes whole weights that transformers 4.57 and 5.x, vLLM and SGLang load.

    All weights are cast to ``dtype``. The projector for another encoder, where there is one, lies
    beside them. ``about`` and the effect of merging become `ABOUT`.
    """
    _require_new(out)
    qwen, tokenizer = load_model(best, dtype)
    if finding_queries_of(qwen) is not None:  # used for cues only: their gate is 1
        del qwen.slice_attention
    merging = _merge(qwen, tokenizer) if adapter_state(qwen) else None
    template = without_thinking(str(tokenizer.chat_template))
    if backbone_of(qwen).markers((0.0,), "index"):  # each pair has a vision block: no outer one
        template = template.replace(VIDEO_BLOCK, VIDEO_PAD)
    tokenizer.chat_template = template
    told = {**about, "merging": merging and asdict(merging)}
    documents = {**_processor_documents(backbone_of(qwen), tokenizer), ABOUT: told}
    save_model(out, qwen, tokenizer, documents=documents)
    (out / MARKER).unlink()
    return merging


def _merge(qwen: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Merging:
    reports = _stock_reports(qwen, tokenizer)
    before = _cross_entropy(qwen, reports)
    merge_adapters(qwen)
    return Merging(len(reports), before, _cross_entropy(qwen, reports))


def _stock_reports(qwen: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One report per finding on a slice pair of noise, as an export has no data to measure on."""
    backbone = backbone_of(qwen)
    side = 8 * backbone.patch_px
    frames = torch.from_numpy(noise_frames(0, 2, (side, side), WINDOWS["three"]))
    shown = Visual(grid_thw=(1, 8, 8), position_mm=(0.0,), frames=frames)
    shown = with_markers(backbone, shown, "index")
    samples = []
    for number in range(len(FINDINGS)):
        labels = tuple(int(number == other) for other in range(len(FINDINGS)))
        report = join_report(*write_template(labels))
        ids, supervised = encode_example(tokenizer, report, shown.grid_thw, markers=shown.markers)
        samples.append(Sample("stock", torch.tensor(ids), torch.tensor(supervised), shown))
    return samples


@torch.inference_mode()
def _cross_entropy(qwen: PreTrainedModel, reports: Sequence[Sample]) -> float:
    """Mean over the tokens of all reports, nats."""
    losses = answer_losses(qwen, collate_samples(reports, pad_id=0), "index")
    return float(losses.values.mean())


def _publish_adapters(best: Path, out: Path, base: str, about: Mapping[str, Any]) -> None:
    """Writes the adapters in PEFT's format; ``base`` is the folder or hub id of their weights."""
    _require_new(out)
    if not is_complete(best):
        raise CtscribeError("E_WEIGHTS", f"{best} must hold complete weights, but does not")
    require_whole(best)
    config = read_adapter_config(best)
    if config is None:
        raise CtscribeError(
            "E_EXPORT",
            f"{best} must hold adapters apart from the weights below them, but model.tuning was "
            "full, or an earlier version merged them",
        )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(best / ADAPTERS, out / "adapter_model.safetensors")
    write_plain_json(out / "adapter_config.json", {**config, "base_model_name_or_path": base})
    write_plain_json(out / ABOUT, dict(about))


def _base_of(best: Path, recipe: Recipe) -> str:
    """Hub id of a run's base weights: the preset's; empty where the preset has none."""
    run = best.parent / "run.json"
    if run.is_file() and read_json(run).get("stage") == "reinforce":
        raise CtscribeError(
            "E_EXPORT",
            "adapters of a reinforced run belong on the weights that it started from, but --base "
            "does not name them",
        )
    return HUB_IDS.get(recipe.model.preset, "")


def _processor_documents(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase
) -> dict[str, dict[str, Any]]:
    """The configuration files of a published checkpoint, by file name.

    The pixel limits are wide enough that our frames are never rescaled. For videos some families
    read ``min_pixels`` and ``max_pixels`` per frame, others ``size`` for all frames together.
    Sampling is off, because all results are measured at temperature 0.
    """
    end, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
    least, most = (tokens * backbone.token_px**2 for tokens in (4, 16384))
    pixels = {
        "min_pixels": least,
        "max_pixels": most,
        "patch_size": backbone.patch_px,
        "temporal_patch_size": MERGE,
        "merge_size": MERGE,
        "image_mean": list(backbone.pixel_mean),
        "image_std": list(backbone.pixel_std),
        "processor_class": backbone.processors["processor"],
    }
    return {
        "preprocessor_config.json": {
            **pixels,
            "image_processor_type": backbone.processors["image_processor"],
        },
        "video_preprocessor_config.json": {
            **pixels,
            "size": {"shortest_edge": least, "longest_edge": MERGE * most},
            "do_sample_frames": False,
            "video_processor_type": backbone.processors["video_processor"],
        },
        "generation_config.json": {
            "do_sample": False,
            "eos_token_id": [end, pad],
            "pad_token_id": pad,
        },
        "chat_template.json": {"chat_template": tokenizer.chat_template},
    }


def _require_new(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise CtscribeError("E_EXISTS", f"{out} must be new or empty, but it holds files")
