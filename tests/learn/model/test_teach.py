"""The tower learns what it is taught, and what an untaught and a taught one make of density."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import ndimage
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import ModelConfig, WarmUpConfig, read_recipe
from ctscribe.learn.model.adapters import merge_adapters
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.finding_queries import (
    FindingsHead,
    attach_finding_queries,
    locate_findings,
    read_warmed_head,
)
from ctscribe.learn.model.qwen2_5_vl import QWEN2_5_VL
from ctscribe.learn.model.teach import (
    Lesson,
    auroc,
    examine,
    let_tower_learn,
    teach,
    whiten_patches,
)
from ctscribe.learn.model.tower import encode_frames, patchify
from ctscribe.learn.warm_up import shipped_start
from ctscribe.scan.boxes import reach_of_slices
from ctscribe.scan.frames import WINDOWS, make_frames
from ctscribe.scan.volume import CTVolume
from ctscribe.text.findings import FINDINGS
from tests.models import tiny_model


def lessons(count: int, seed: int) -> list[Lesson]:
    """Noise in which half of the volumes hold one bright square, a nodule, somewhere."""
    draw = np.random.default_rng(seed)
    nodule = FINDINGS.index("Lung nodule")
    made = []
    for _ in range(count):
        frames = draw.integers(60, 120, (4, 56, 56, 3)).astype(np.uint8)
        z, row, column = draw.integers(4), *draw.integers(2, 44, 2)
        present = bool(draw.random() < 0.5)
        if present:
            frames[z, row : row + 8, column : column + 8] = 250
        box = [[column, column + 7], [row, row + 7], [z, z]]
        boxes = np.array([box] if present else [], np.float64).reshape(-1, 3, 2)
        findings = (nodule,) if present else ()
        labels = tuple(int(present and i == nodule) for i in range(18))
        made.append(Lesson(frames, reach_of_slices((0, 1, 2, 3)), boxes, findings, labels))
    return made


def test_a_tower_learns_to_see_squares(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    model = deepcopy(qwen)
    before = {k: v.clone() for k, v in model.model.language_model.state_dict().items()}
    told: list[tuple[int, int]] = []
    config = WarmUpConfig(epochs=5, batch_size=8, learning_rate=5e-3, seed=0)
    head, losses = teach(model, lessons(64, 0), config, progress=lambda *done: told.append(done))
    assert losses[-1] < 0.6 * losses[0]
    assert told[-1] == (40, 40)
    result = examine(model, head, lessons(40, 1))
    assert result["auroc"]["Lung nodule"] > 0.9
    assert result["auroc_shown"] == result["auroc"]
    assert result["auroc"]["Emphysema"] is None
    assert result["mean_auroc"] == result["auroc"]["Lung nodule"]
    after = model.model.language_model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_same_seed_teaches_the_same(qwen: Qwen2_5_VLForConditionalGeneration) -> None:
    config = WarmUpConfig(epochs=1, batch_size=4, learning_rate=1e-3, seed=3)
    (_, first), (_, second) = (teach(deepcopy(qwen), lessons(8, 0), config) for _ in range(2))
    assert first == second


def test_a_volume_scores_by_its_best_cells() -> None:
    head = FindingsHead(4)
    cells, volumes = head(torch.randn(10, 4), [6, 4])
    assert cells.shape == (10, 16, 18)
    expected = torch.stack([part.exp().sum((0, 1)).log() for part in (cells[:6], cells[6:])])
    torch.testing.assert_close(volumes, expected + head.volume_bias)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([1.0, 1.0], [0, 1], 0.5),
        ([0.0, 1.0], [0, 1], 1.0),
        ([0.0, 1.0], [1, 1], None),
    ],
)
def test_auroc(scores: list[float], truth: list[int], expected: float | None) -> None:
    assert auroc(np.array(scores, np.float32), np.array(truth) > 0) == expected


def test_present_without_a_box_is_not_located() -> None:
    (lesson,) = lessons(1, 5)
    nodule = FINDINGS.index("Lung nodule")
    labels = tuple(int(i in (nodule, 0)) for i in range(18))
    boxed = replace(lesson, labels=labels, findings=(nodule,), boxes=np.zeros((1, 3, 2)))
    assert [i for i, known in enumerate(boxed.located) if not known] == [0]


def smooth_frames(seed: int) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((4, 112, 112, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 4, 0))
    return torch.from_numpy(np.clip(128 + 900 * smooth, 0, 255).astype(np.uint8))


def test_filters_answer_equally_strongly_and_independently(
    qwen: Qwen2_5_VLForConditionalGeneration,
) -> None:
    model = deepcopy(qwen)
    frames = [smooth_frames(seed) for seed in range(24)]
    patches = torch.cat([patchify(volume, QWEN2_5_VL)[0] for volume in frames])

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


@pytest.mark.parametrize("tower", ["full", "last_blocks", "lora"])
def test_only_what_shall_learn_changes(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    tower: str,
) -> None:
    model = deepcopy(qwen)
    config = WarmUpConfig(
        tower=tower,
        last_blocks=1,
        epochs=1,
        batch_size=4,
        learning_rate=1e-2,
        seed=0,
    )
    let_tower_learn(model, config, ModelConfig(lora_r=2, lora_alpha=4))
    teach(model, lessons(8, 0), config)
    save_model(tmp_path / "taught", model, tokenizer)
    taught, _ = load_model(tmp_path / "taught")
    merge_adapters(taught)
    before, after = qwen.state_dict(), taught.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith("model.visual.") for name in changed)
    blocks = {int(name.split(".")[3]) for name in changed if ".blocks." in name}
    assert blocks == ({3} if tower == "last_blocks" else {0, 1, 2, 3})
    assert ("model.visual.patch_embed.proj.weight" in changed) == (tower == "full")
    assert any(".merger." in name for name in changed)


def cosine(qwen: Qwen2_5_VLForConditionalGeneration, windows: Literal["single", "three"]) -> float:
    """Between the merged features of healthy lung and of emphysema, both without texture."""
    merged = []
    for hu in (-850, -970):
        volume = CTVolume(np.full((56, 56, 2), hu, np.int16), np.eye(4))
        frames, _ = make_frames(volume, (1, 0), WINDOWS[windows])
        with torch.inference_mode():
            merged.append(encode_frames(qwen, [torch.from_numpy(frames)]).mean(0))
    return float(torch.cosine_similarity(merged[0], merged[1], dim=0))


def test_three_windows_make_density_visible(tokenizer: PreTrainedTokenizerBase) -> None:
    for seed in range(3):
        untrained = tiny_model(tokenizer, seed=seed)
        assert cosine(untrained, "single") > 0.997
        assert 1 - cosine(untrained, "three") > 5 * (1 - cosine(untrained, "single"))


def test_a_warm_tower_sees_density_in_three_windows_only() -> None:
    start = shipped_start(read_recipe("tiny"))
    assert start is not None
    qwen, _ = load_model(start)
    head = attach_finding_queries(qwen, read_warmed_head(start)).head
    assert cosine(qwen, "single") > 0.995
    assert cosine(qwen, "three") < 0.9
    assert 1 - cosine(qwen, "three") > 50 * (1 - cosine(qwen, "single"))
    lung, emphysema = (finding_log_odds(qwen, head, hu, "single") for hu in (-850, -970))
    assert np.abs(emphysema - lung).max() < 1
    lung, emphysema = (finding_log_odds(qwen, head, hu, "three") for hu in (-850, -970))
    assert np.abs(emphysema - lung)[FINDINGS.index("Emphysema")] > 5


def finding_log_odds(
    qwen: Qwen2_5_VLForConditionalGeneration,
    head: FindingsHead,
    hu: int,
    windows: Literal["single", "three"],
) -> np.ndarray:
    """What the queries that were warmed up with a tower say of five pairs of one density."""
    volume = CTVolume(np.full((112, 112, 10), hu, np.int16), np.eye(4))
    frames, _ = make_frames(volume, range(10), WINDOWS[windows])
    with torch.inference_mode():
        tokens = encode_frames(qwen, [torch.from_numpy(frames)])
        return locate_findings(head, tokens, (5, 8, 8)).logits.numpy()
