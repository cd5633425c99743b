"""Computes the features of a frozen tower once and stores them, so that training never runs it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import ProgressCallback, remove_parts
from ctscribe.base.locks import many_writers
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow
from ctscribe.base.workers import launched, own_gpu, wait_for_others
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.backbone import Backbone
from ctscribe.learn.model.checkpoint import load_model
from ctscribe.learn.model.families import backbone_of
from ctscribe.learn.model.feature_store import (
    FEATURES,
    NOISE_PAIRS,
    FeatureStore,
    find_encoder,
    open_encoder,
)
from ctscribe.learn.model.projector import projector_of
from ctscribe.learn.model.tensor_files import write_tensors
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.pairs.dataset import Visual, slice_pair_positions
from ctscribe.scan.frames import WINDOWS, noise_frames

_PIXELS_PER_CALL = 8192 * 2 * 14 * 14
"""Pixels that go through the tower as one batch: 8,192 patches of Qwen2.5-VL."""
_FORMAT = 2
"""Version of the files' format, part of the folder's name."""


def store_features(
    qwen: PreTrainedModel,
    prepared: Prepared,
    studies: Sequence[StudyRow],
    *,
    noise: bool = False,
    merged: bool = True,
    progress: ProgressCallback = lambda done, total: None,
) -> FeatureStore:
    """Computes the features of ``studies`` that are not stored yet and opens the store.

    For a model with another encoder nothing is computed; all features must be there. With ``noise``
    the noise bank of every frame size is computed too. With ``merged=False`` features are those
    before the merger, for a merger that is trained. ``progress`` is called with (volumes done, all
    volumes). Any number of processes may store features of one folder.

    Raises:
        CtscribeError: ``E_OVERFLOW`` when a feature is not finite, ``E_BUSY`` while the frames are
            prepared, ``E_WRITE``, ``E_ENCODER`` as `open_encoder`.
    """
    if (projector := projector_of(qwen)) is not None:
        return open_encoder(prepared, projector.encoder, studies, noise=noise)
    encode = partial(_encode, qwen, merged=merged)
    store = FeatureStore(prepared, prepared.features(_tower_hash(qwen, merged)))
    paths = {study.volume_name: store.path(study) for study in studies}
    missing = [study for study in studies if not paths[study.volume_name].exists()]
    done = len(studies) - len(missing)
    progress(done, len(studies))
    with _writing(store) if missing else nullcontext():
        for batch, frames in _batches(prepared, missing):
            for study, features in zip(batch, encode(frames), strict=True):
                _write(store, paths[study.volume_name], features, study.volume_name)
            done += len(batch)
            progress(done, len(studies))
    if noise:
        _store_noise(store, encode, studies, backbone_of(qwen).token_px)
    return store


@contextmanager
def _writing(store: FeatureStore) -> Iterator[None]:
    """Locks the prepared folder, so that `prepare` cannot change frames, and removes old parts."""
    with many_writers(store.prepared.folder):
        remove_parts(store.folder)
        yield


def _store_noise(
    store: FeatureStore,
    encode: Callable[[list[Tensor]], list[Tensor]],
    studies: Sequence[StudyRow],
    token_px: int,
) -> None:
    """Computes the noise bank of every frame size, where it is missing."""
    sizes = {tuple(store._of(study).shape[1:3]) for study in studies}
    banks = {store.bank_path((rows, columns)): (rows, columns) for rows, columns in sizes}
    missing = {path: size for path, size in banks.items() if not path.exists()}
    with _writing(store) if missing else nullcontext():
        for path, size in missing.items():
            side = size[0] * token_px, size[1] * token_px
            bank = _noise_bank(encode, side, store.prepared)
            _write(store, path, bank, "the noise bank")


def store_together(
    qwen: PreTrainedModel,
    prepared: Prepared,
    studies: Sequence[StudyRow],
    *,
    noise: bool = False,
    merged: bool = True,
    progress: ProgressCallback = lambda done, total: None,
) -> FeatureStore:
    """As `store_features`, with the volumes divided among the launched processes.

    They wait for each other's files. If none appears for half an hour, each process computes what
    is missing.

    Raises:
        CtscribeError: As `store_features`.
    """
    process, num_processes = launched()
    if num_processes > 1:
        share = studies[process::num_processes]
        store = store_features(qwen, prepared, share, merged=merged, progress=progress)
        _wait_for([store.path(study) for study in studies], progress)
    return store_features(qwen, prepared, studies, noise=noise, merged=merged, progress=progress)


def _wait_for(paths: Sequence[Path], progress: ProgressCallback) -> None:
    missing = list(paths)

    def num_missing() -> int:
        missing[:] = [path for path in missing if not path.exists()]
        return len(missing)

    wait_for_others(num_missing, lambda left: progress(len(paths) - left, len(paths)))


def store_all(
    prepared: Prepared,
    recipe: Recipe,
    start: str | Path | None,
    *,
    noise: bool,
    share: tuple[int, int] = (0, 1),
    progress: ProgressCallback = lambda done, total: None,
) -> None:
    """Stores the features of all studies that a run of this recipe from these weights would read.

    ``share`` is which of how many parts is done, from 0; the others are left. Where the recipe
    names another encoder, its features must be there.

    Raises:
        CtscribeError: As `store_features`; ``E_PREPARED``, ``E_WEIGHTS``, and ``E_RECIPE`` for a
            recipe whose tower learns, since its features change.
    """
    if not recipe.model.freeze_tower:
        raise CtscribeError(
            "E_RECIPE",
            "features are stored of a tower that stays as it is, but model.freeze_tower is false",
        )
    prepared.require(recipe)
    studies = prepared.studies[share[0] :: share[1]]
    if (name := recipe.model.encoder) is not None:
        open_encoder(prepared, find_encoder(prepared, name), studies, noise=noise)
        return
    qwen, _ = load_model(start or recipe.model.preset, recipe.model.dtype)
    if torch.cuda.is_available():
        qwen.to(own_gpu())
    merged = recipe.model.freeze_merger
    store_features(qwen, prepared, studies, noise=noise, merged=merged, progress=progress)


def frames_of(
    backbone: Backbone, prepared: Prepared, study: StudyRow, noise_seed: int | None = None
) -> Visual:
    """Like `FeatureStore.visual`, but with frames, for a tower that is trained."""
    frames = np.array(prepared.frames(study))
    slices, height, width, _ = frames.shape
    if noise_seed is not None:
        windows = WINDOWS[prepared.windows]
        frames = noise_frames(noise_seed, slices, (height, width), windows, prepared.projection)
    return Visual(
        grid_thw=(slices // 2, height // backbone.patch_px, width // backbone.patch_px),
        position_mm=slice_pair_positions(study.position_mm),
        frames=torch.from_numpy(frames),
        patient_id=None if noise_seed is not None else study.patient_id,
    )


def _tower_hash(qwen: PreTrainedModel, merged: bool) -> str:
    """A hash of all that the features depend on, besides the frames."""
    tower = qwen.model.visual
    mergers = backbone_of(qwen).mergers(tower)
    named = tower.named_modules()
    merger_prefixes = tuple(f"{name}." for name, module in named if module in mergers)
    settings = sorted(tower.config.to_diff_dict().items())
    digest = hashlib.sha256(f"{_FORMAT} {tower.dtype} {settings}".encode())
    for name, tensor in sorted(tower.state_dict().items()):
        if merged or not name.startswith(merger_prefixes):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _batches(
    prepared: Prepared, studies: Sequence[StudyRow]
) -> Iterator[tuple[list[StudyRow], list[Tensor]]]:
    """Studies with their frames, in batches of about `_PIXELS_PER_CALL` pixels."""
    batch: list[StudyRow] = []
    frames: list[Tensor] = []
    pixels = 0
    for study in studies:
        volume = torch.from_numpy(np.array(prepared.frames(study)))
        batch.append(study)
        frames.append(volume)
        pixels += volume[..., 0].numel()
        if pixels >= _PIXELS_PER_CALL:
            yield batch, frames
            batch, frames, pixels = [], [], 0
    if batch:
        yield batch, frames


@torch.inference_mode()
def _encode(qwen: PreTrainedModel, frames: Sequence[Tensor], *, merged: bool) -> list[Tensor]:
    """Features of each volume as [slice pairs, rows, columns, width]."""
    side = backbone_of(qwen).token_px
    shapes = [(len(f) // 2, f.shape[1] // side, f.shape[2] // side) for f in frames]
    sizes = [pairs * rows * columns for pairs, rows, columns in shapes]
    parts = torch.split(encode_frames(qwen, frames, merged=merged).cpu(), sizes)
    return [part.reshape(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def _write(store: FeatureStore, path: Path, features: Tensor, name: str) -> None:
    if not bool(torch.isfinite(features).all()):
        raise CtscribeError(
            "E_OVERFLOW", f"visual tokens must be finite, but those of {name} are not"
        )
    write_tensors(path, {FEATURES: features.contiguous()}, store.facts(path))


def _noise_bank(
    encode: Callable[[list[Tensor]], list[Tensor]],
    size_px: tuple[int, int],
    prepared: Prepared,
) -> Tensor:
    windows = WINDOWS[prepared.windows]
    per_call = max(1, _PIXELS_PER_CALL // (2 * size_px[0] * size_px[1]))
    parts = []
    for start in range(0, NOISE_PAIRS, per_call):
        seeds = range(start, min(start + per_call, NOISE_PAIRS))
        drawn = (noise_frames(s, 2, size_px, windows, prepared.projection) for s in seeds)
        parts += encode([torch.from_numpy(frames) for frames in drawn])
    return torch.cat(parts)
