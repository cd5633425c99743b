"""The volumes of contrastive decoding: chosen once from the training scans, kept with the run.

In: training scans and their stored features. Out: ``contrast_<kind>.safetensors`` in the run's
folder, so that a scan outside any data set can be reported with the same contrast.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import sha256_of_json
from ctscribe.base.recipe import GenerateConfig
from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.backbone import MERGE, Positions
from ctscribe.learn.model.decoding import Contrast, prefill_volumes
from ctscribe.learn.model.families import backbone_of, with_markers
from ctscribe.learn.model.feature_store import FeatureStore
from ctscribe.learn.model.tensor_files import read_tensors, write_tensors
from ctscribe.learn.pairs.dataset import Visual

_NUM_MEAN = 1024
"""Scans in the mean; its standard error is then a 32nd of the spread between scans."""


def choose_volumes(
    store: FeatureStore, scans: Sequence[StudyRow], generate: GenerateConfig, seed: int
) -> list[Visual]:
    """Chooses the volumes that every report is contrasted with.

    Of other patients' volumes one more is chosen than each scan is contrasted with, because a
    training scan must not be contrasted with its own patient. ``seed`` draws the patients, the
    noise, and the scans that are averaged.

    Args:
        store: Opened with noise where ``generate`` asks for it.
        scans: One row for each scan of the training split, all in the store.
        generate: Says which kind of volumes (``contrast``) and how many (``num_negatives``).
        seed: Of all draws.

    Raises:
        CtscribeError: ``E_EMPTY_SPLIT`` with too few patients.
    """
    draw = np.random.default_rng([seed, 0])
    if generate.contrast == "others":
        return [store.visual(study) for study in _patients(scans, generate.num_negatives + 1, draw)]
    if generate.contrast == "mean":
        chosen = draw.permutation(len(scans))[:_NUM_MEAN]
        return [mean_volume(store, [scans[number] for number in sorted(chosen)])]
    like = scans[int(draw.integers(len(scans)))]
    seeds = range(seed, seed + generate.num_negatives)
    return [store.visual(like, noise_seed) for noise_seed in seeds]


def _patients(scans: Sequence[StudyRow], count: int, draw: np.random.Generator) -> list[StudyRow]:
    """One scan each of ``count`` patients, drawn at random."""
    found: dict[str, StudyRow] = {}
    for number in draw.permutation(len(scans)):
        found.setdefault(scans[number].patient_id, scans[number])
    if len(found) < count:
        raise CtscribeError(
            "E_EMPTY_SPLIT",
            f"contrast with other patients needs {count} of them in the training split, but it "
            f"has {len(found)}",
        )
    return list(found.values())[:count]


def mean_volume(store: FeatureStore, scans: Sequence[StudyRow]) -> Visual:
    """The average scan: the mean visual tokens and the mean positions of scans.

    It has the grid that most of the scans have. Scans with another grid are interpolated to it,
    linearly along slice pairs, rows and columns. The result is written beside the features and
    read from there the next time the same scans are averaged.
    """
    names = sha256_of_json([store.path(scan).name for scan in scans])
    path = store.folder / f"mean_{names[:16]}.safetensors"
    if path.exists():
        return read_volumes(path)[0]
    grid = Counter(store.visual(scan).grid_thw for scan in scans).most_common(1)[0][0]
    tokens: Tensor | float = 0.0
    position_mm = torch.zeros(grid[0], dtype=torch.float64)
    for scan in scans:
        visual = store.visual(scan)
        tokens = tokens + _on_grid(visual, grid).double() / len(scans)
        places = torch.tensor(visual.position_mm, dtype=torch.float64)
        position_mm += _resized(places[None, None], (grid[0],), "linear")[0, 0] / len(scans)
    dtype = store.visual_tokens(scans[0]).dtype
    mean = Visual(grid, tuple(position_mm.tolist()), None, torch.as_tensor(tokens).to(dtype))
    write_volumes(path, [mean], {})
    return mean


def _on_grid(
    visual: Visual, grid_thw: tuple[int, int, int]
) -> Float[Tensor, "visual_tokens width"]:
    """A volume's visual tokens, interpolated to another grid where it has not the same."""
    assert visual.visual_tokens is not None  # a store gives nothing else
    if visual.grid_thw == grid_thw:
        return visual.visual_tokens
    shape, target_shape = (
        (pairs, rows // MERGE, columns // MERGE)
        for pairs, rows, columns in (visual.grid_thw, grid_thw)
    )
    cells = visual.visual_tokens.float().reshape(*shape, -1).permute(3, 0, 1, 2)[None]
    return _resized(cells, target_shape, "trilinear")[0].permute(1, 2, 3, 0).flatten(0, 2)


def _resized(values: Tensor, size: tuple[int, ...], mode: Literal["linear", "trilinear"]) -> Tensor:
    return values if values.shape[2:] == size else interpolate(values, size, mode=mode)


def write_volumes(path: Path, visuals: Sequence[Visual], facts: dict[str, str]) -> None:
    """Writes volumes into one safetensors file whose metadata hold ``facts`` about them."""
    rows = [[visual.grid_thw, visual.position_mm, visual.patient_id] for visual in visuals]
    tokens = {
        f"{number:03d}": visual.visual_tokens.contiguous()
        for number, visual in enumerate(visuals)
        if visual.visual_tokens is not None
    }
    write_tensors(path, tokens, {**facts, "volumes": json.dumps(rows)})


def read_volumes(path: Path, facts: dict[str, str] | None = None) -> list[Visual]:
    """Reads what `write_volumes` wrote; nothing where it was written with other ``facts``.

    Raises:
        CtscribeError: ``E_FEATURES`` when the file is damaged.
    """
    tokens, written = read_tensors(path)
    rows = json.loads(written.pop("volumes", "[]"))
    if written != (facts or {}):
        return []
    return [
        Visual(tuple(grid), tuple(position_mm), None, tokens[f"{number:03d}"], patient)
        for number, (grid, position_mm, patient) in enumerate(rows)
    ]


def prefill_contrast(
    qwen: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    volumes: Sequence[Visual],
    positions: Positions,
    generate: GenerateConfig,
) -> Contrast:
    """Runs the chosen volumes through the model once, for all reports that follow."""
    backbone = backbone_of(qwen)
    shown = [with_markers(backbone, volume, positions) for volume in volumes]
    with torch.inference_mode():
        return Contrast(
            *prefill_volumes(qwen, tokenizer, shown, positions),
            patient_ids=tuple(volume.patient_id for volume in volumes),
            num_others=1 if generate.contrast == "mean" else generate.num_negatives,
            weight=generate.contrast_weight,
            plausibility=generate.plausibility,
        )
