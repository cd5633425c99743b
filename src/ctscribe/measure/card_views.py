"""What a model is shown instead of the scan: noise, air, somebody else, slices out of order.

The tower encodes every pair of neighbouring slices on its own, so a volume whose slice pairs are
shuffled or replaced has the same visual tokens, shuffled or replaced. All views are therefore put
together from stored features and equal what the tower would make of the altered frames.
Positions stay those of the volume shown: a shuffled pair claims the place it was moved to.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.features import FeatureStore
from ctscribe.learn.model.tower import MERGE, PATCH_PX, encode_frames
from ctscribe.learn.pairs.build import noise_seeds
from ctscribe.learn.pairs.dataset import Visual
from ctscribe.scan.frames import WINDOWS, air_frames
from ctscribe.write.writer import View

DROPPED_SHARE = 0.5
"""Of the slice pairs, rounded up; at least one stays."""

VIEWS = {
    "real": "the scan itself",
    "noise": "standard normal noise in units of 1000 HU, clipped to ±1",
    "blank": "air",
    "other_patient": "the scan of another patient of the split, drawn once",
    "shuffled": "its slice pairs in a drawn order in which none keeps its place",
    "dropped": f"its slice pairs, {100 * DROPPED_SHARE:.0f} % of them drawn and replaced by air",
}
"""View → what is shown; the report asked for stays that of the scan itself."""


def make_views(
    qwen: Qwen2_5_VLForConditionalGeneration,
    store: FeatureStore,
    strangers: Mapping[str, StudyRow],
) -> dict[str, View]:
    """The views of `VIEWS`; what is drawn depends on the study's name alone.

    Args:
        qwen: Its tower encodes air.
        store: Opened with noise; holds every study.
        strangers: Volume name to the study of another patient that is shown for it.
    """

    @cache
    def air(grid_hw: tuple[int, int]) -> Float[Tensor, "tokens hidden"]:
        size = (grid_hw[0] * PATCH_PX, grid_hw[1] * PATCH_PX)
        frames = torch.from_numpy(air_frames(2, size, WINDOWS[store.prepared.windows]))
        with torch.inference_mode():
            return encode_frames(qwen, [frames]).cpu()

    def noise(study: StudyRow) -> Visual:
        return store.visual(study, _seed(study))

    def blank(study: StudyRow) -> Visual:
        visual = store.visual(study)
        return _with_air(visual, np.ones(visual.grid_thw[0], dtype=bool), air(visual.grid_thw[1:]))

    def shuffled(study: StudyRow) -> Visual:
        visual = store.visual(study)
        order = draw_order(visual.grid_thw[0], _seed(study))
        return replace(
            visual, visual_tokens=_by_pair(visual)[torch.from_numpy(order)].flatten(0, 1)
        )

    def dropped(study: StudyRow) -> Visual:
        visual = store.visual(study)
        gone = draw_dropped(visual.grid_thw[0], DROPPED_SHARE, _seed(study))
        return _with_air(visual, gone, air(visual.grid_thw[1:]))

    return {
        "real": store.visual,
        "noise": noise,
        "blank": blank,
        "other_patient": lambda study: store.visual(strangers[study.volume_name]),
        "shuffled": shuffled,
        "dropped": dropped,
    }


def draw_order(num_pairs: int, seed: int) -> Int64[np.ndarray, "pairs"]:
    """A permutation without a fixed point, uniform among cyclic ones; one pair stays alone."""
    circle = np.random.default_rng(seed).permutation(num_pairs)
    order = np.empty(num_pairs, dtype=np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def draw_dropped(num_pairs: int, share: float, seed: int) -> Bool[np.ndarray, "pairs"]:
    """Which slice pairs are taken away: ``share`` of them, rounded up, leaving at least one."""
    number = min(num_pairs - 1, int(np.ceil(share * num_pairs)))
    gone = np.zeros(num_pairs, dtype=bool)
    gone[np.random.default_rng(seed).permutation(num_pairs)[:number]] = True
    return gone


def _seed(study: StudyRow) -> int:
    return noise_seeds([study.volume_name], seed=0)[0]


def _by_pair(visual: Visual) -> Float[Tensor, "pairs tokens hidden"]:
    pairs, height, width = visual.grid_thw
    if visual.visual_tokens is None:
        raise ValueError("views are made of stored features")
    return visual.visual_tokens.reshape(pairs, height * width // MERGE**2, -1)


def _with_air(
    visual: Visual, gone: Bool[np.ndarray, "pairs"], air: Float[Tensor, "tokens hidden"]
) -> Visual:
    tokens = _by_pair(visual).clone()
    tokens[torch.from_numpy(gone)] = air.to(tokens.dtype)
    return replace(visual, visual_tokens=tokens.flatten(0, 1))
