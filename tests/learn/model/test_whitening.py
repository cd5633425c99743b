from copy import deepcopy

import numpy as np
import torch
from scipy import ndimage
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.learn.model.teach import whiten_patches
from ctscribe.learn.model.tower import patchify


def smooth_frames(seed: int) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((4, 112, 112, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 4, 0))
    return torch.from_numpy(np.clip(128 + 900 * smooth, 0, 255).astype(np.uint8))


def test_filters_answer_equally_strongly_and_independently(
    qwen: Qwen2_5_VLForConditionalGeneration,
) -> None:
    model = deepcopy(qwen)
    frames = [smooth_frames(seed) for seed in range(24)]
    patches = torch.cat([patchify(volume)[0] for volume in frames])

    def spread() -> torch.Tensor:
        with torch.no_grad():
            answers: torch.Tensor = model.model.visual.patch_embed(patches)
            strengths: torch.Tensor = torch.linalg.svdvals(torch.cov(answers.T))
            return strengths

    before = spread()
    torch.manual_seed(0)
    whiten_patches(model, frames)
    after = spread()
    assert float(after[0] / after[40]) < 0.1 * float(before[0] / before[40])
    assert float(after.max()) < 1.05
