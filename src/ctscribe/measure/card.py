"""A run's image-dependence card: its reports of the same studies under every view.

In: a run and prepared scans. Out: ``card.json``, with the reports written under each view beside
it; or the mismatch gap alone.

The tower encodes every slice pair on its own, so the visual tokens of a volume with shuffled or
replaced pairs are its own tokens, shuffled or replaced. Most views are therefore made from stored
features, and equal what the tower would compute from the altered frames. Another encoder sees the
whole volume, so its features of altered volumes are not known; its card has only the scan itself,
another patient's, and noise. Positions stay in their order: a shuffled pair gets the position of
the place it was moved to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel

from ctscribe.base.about import RESEARCH_USE
from ctscribe.base.files import ProgressCallback, write_json
from ctscribe.base.locks import one_writer
from ctscribe.base.rows import StudyRow
from ctscribe.base.runs import open_run, require_same_run
from ctscribe.base.types import Split
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.backbone import MERGE
from ctscribe.learn.model.families import backbone_of
from ctscribe.learn.model.feature_store import EncoderStore, FeatureStore
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.measure.card_scores import score_card
from ctscribe.measure.card_views import (
    DROPPED_SHARE,
    FROM_VOLUMES,
    VIEWS,
    draw_dropped,
    draw_order,
    scans_with_strangers,
    seed_of,
)
from ctscribe.measure.card_volumes import VOLUMES, MakeVolume
from ctscribe.measure.intervals import mean_with_interval
from ctscribe.measure.scans import as_reports, match_predictions
from ctscribe.scan.frames import WINDOWS, air_frames, frames_of_lungs
from ctscribe.write.generate import write_scans
from ctscribe.write.prediction_file import PredictionFile
from ctscribe.write.writer import ReportWriter, View


def make_card(
    writer: ReportWriter,
    prepared: Prepared,
    split: Split,
    out_dir: Path,
    *,
    progress: ProgressCallback = lambda done, total: None,
) -> dict[str, Any]:
    """Measures and writes ``card.json``, and returns what it holds; see `score_card`.

    The reports are kept beside it as ``reports_<view>.jsonl``, so an interrupted call can be
    repeated. ``progress`` is called with (volumes shown, all); each view is shown twice, for cross
    entropy and for reports.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_WEIGHTS`` without
            complete weights, ``E_CUES``, ``E_PREPARED``, ``E_RUN_EXISTS`` when the folder holds
            another model's card, ``E_BUSY``.
    """
    scans, strangers = scans_with_strangers(prepared.split(split))
    prepared.require(writer.recipe)
    identity = {
        "weights_sha256": writer.weights_sha256,
        "split": split,
        "studies_sha256": prepared.sha256(scans),
    }
    with one_writer(out_dir):
        writer.prepare_contrast(prepared)
        asked = identity | _way_of_writing(writer)
        require_same_run(out_dir, "card", asked)
        views = _all_views(writer, prepared, scans, strangers)
        writer.with_cue(views["real"](scans[0]))  # raises for a run that lacks cues
        open_run(out_dir, "card", asked)
        cross_entropy, answers, truth = {}, {}, as_reports(scans)
        size = writer.generate.batch_size
        paths = {name: out_dir / f"reports_{name}.jsonl" for name in views}
        files = {name: PredictionFile(path, scans, size) for name, path in paths.items()}
        lacking = sum(len(file.missing()) for file in files.values())
        progress(len(views) * len(scans) - lacking, 2 * len(views) * len(scans))
        for number, (name, view) in enumerate(views.items()):
            tell = _part(number, len(views), len(scans), progress)
            cross_entropy[name] = writer.losses(scans, view)
            tell(0, len(scans))
            write_scans(writer, files[name], view, progress=tell)
            tell(len(scans), len(scans))
            answers[name], _ = match_predictions(files[name].finish(), truth)
        scores = score_card(cross_entropy, answers, truth, writer.recipe.evaluate)
        card = identity | scores | {"use": RESEARCH_USE}
        write_json(out_dir / "card.json", card)
        return card


def _all_views(
    writer: ReportWriter,
    prepared: Prepared,
    scans: Sequence[StudyRow],
    strangers: Mapping[str, StudyRow],
) -> dict[str, View]:
    """The views in the order of `VIEWS`; those of `FROM_VOLUMES` only where volumes were kept."""
    of_tower = writer.recipe.model.encoder is None
    store = writer.features(prepared, scans, noise=of_tower)
    views = make_views(writer.qwen, store, strangers)
    if isinstance(store, EncoderStore):
        shown = {"real", "other_patient"} | ({"noise"} if store.has_noise(scans) else set())
        return {name: views[name] for name in VIEWS if name in shown}
    if all(map(prepared.has_volume, scans)):
        views |= make_volume_views(writer, prepared, strangers)
    return {name: views[name] for name in VIEWS if name in views}


def _way_of_writing(writer: ReportWriter) -> dict[str, Any]:
    return {
        **writer.made_of(),
        "recipe": writer.recipe.as_asked(),
        "cue_threshold": writer.calibration and writer.calibration.cue_threshold,
    }


def _part(
    number: int, num_views: int, num_scans: int, progress: ProgressCallback
) -> ProgressCallback:
    """Progress of writing one view's reports, after its cross entropies, within the whole card."""
    before, total = (2 * number + 1) * num_scans, 2 * num_views * num_scans
    return lambda done, _: progress(before + done, total)


def measure_gap(writer: ReportWriter, prepared: Prepared, split: Split = "test") -> dict[str, Any]:
    """Mismatch gap: CE of each report on another patient's volume minus CE on its own.

    A model that recites the template has a gap of 0. The first volume of each scan is measured.

    Returns:
        ``value``, ``low`` and ``high`` of the gap in nats per answer token, the interval over
        patients, and ``scans``: per scan its ``own_ce`` and ``other_ce``.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with fewer than two patients, ``E_PREPARED``.
    """
    scans, strangers = scans_with_strangers(prepared.split(split))
    store = writer.features(prepared, scans)  # refuses other frames before weights are read
    views = make_views(writer.qwen, store, strangers)
    own, other = (writer.losses(scans, views[name]) for name in ("real", "other_patient"))
    return {
        **mean_with_interval(other - own, [scan.patient_id for scan in scans]),
        "scans": [
            {"scan_id": scan.scan_id, "own_ce": own_ce, "other_ce": other_ce}
            for scan, own_ce, other_ce in zip(scans, own.tolist(), other.tolist(), strict=True)
        ],
    }


def make_views(
    qwen: PreTrainedModel,
    store: FeatureStore,
    strangers: Mapping[str, StudyRow],
) -> dict[str, View]:
    """The views made from stored features; random draws depend on the study's name alone.

    Args:
        qwen: Its tower encodes air.
        store: Holds every study, and noise if that view is used.
        strangers: Volume name → the study of another patient that is shown instead.
    """
    patch_px = backbone_of(qwen).patch_px

    @cache
    def air(grid_hw: tuple[int, int]) -> Float[Tensor, "tokens hidden"]:
        size = (grid_hw[0] * patch_px, grid_hw[1] * patch_px)
        frames = torch.from_numpy(air_frames(2, size, WINDOWS[store.prepared.windows]))
        with torch.inference_mode():
            return encode_frames(qwen, [frames]).cpu()

    def blank(study: StudyRow) -> Visual:
        visual = store.visual(study)
        return _with_air(visual, np.ones(visual.grid_thw[0], dtype=bool), air(visual.grid_thw[1:]))

    def shuffled(study: StudyRow) -> Visual:
        visual = store.visual(study)
        order = torch.from_numpy(draw_order(visual.grid_thw[0], seed_of(study)))
        return replace(visual, visual_tokens=_by_pair(visual)[order].flatten(0, 1))

    def dropped(study: StudyRow) -> Visual:
        visual = store.visual(study)
        gone = draw_dropped(visual.grid_thw[0], DROPPED_SHARE, seed_of(study))
        return _with_air(visual, gone, air(visual.grid_thw[1:]))

    return {
        "real": store.visual,
        "noise": lambda study: store.visual(study, seed_of(study)),
        "blank": blank,
        "other_patient": lambda study: store.visual(strangers[study.volume_name]),
        "shuffled": shuffled,
        "dropped": dropped,
    }


def make_volume_views(
    writer: ReportWriter, prepared: Prepared, strangers: Mapping[str, StudyRow]
) -> dict[str, View]:
    """The views of `FROM_VOLUMES`: altered volumes, sliced and encoded as any scan.

    Args:
        writer: Its recipe and tower are used.
        prepared: Holds the volumes.
        strangers: As for `make_views`.
    """
    knobs = writer.recipe.volume, writer.recipe.slices

    def show(make: MakeVolume, study: StudyRow) -> Visual:
        own, other = map(prepared.volume, (study, strangers[study.volume_name]))
        return writer.visual(frames_of_lungs(make(own, other, seed_of(study)), *knobs))

    return {name: partial(show, VOLUMES[name]) for name in FROM_VOLUMES}


def _by_pair(visual: Visual) -> Float[Tensor, "pairs tokens hidden"]:
    pairs, height, width = visual.grid_thw
    assert visual.visual_tokens is not None  # a store gives nothing else
    return visual.visual_tokens.reshape(pairs, height * width // MERGE**2, -1)


def _with_air(
    visual: Visual, gone: Bool[np.ndarray, "pairs"], air: Float[Tensor, "tokens hidden"]
) -> Visual:
    tokens = _by_pair(visual).clone()
    tokens[torch.from_numpy(gone)] = air.to(tokens.dtype)
    return replace(visual, visual_tokens=tokens.flatten(0, 1))
