from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import ModelConfig, WarmUpConfig, read_recipe
from ctscribe.learn.model.checkpoint import load_model, save_model
from ctscribe.learn.model.finding_queries import FindingsHead, attach, locate_findings, warmed_head
from ctscribe.learn.model.teach import let_tower_learn, teach
from ctscribe.learn.model.tower import encode_frames
from ctscribe.learn.warm_up import shipped_start
from ctscribe.scan.frames import WINDOWS, make_frames
from ctscribe.scan.volume import CTVolume
from ctscribe.text.findings import FINDINGS
from tests.learn.model.test_teach import lessons
from tests.models import tiny_model


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
    head = attach(qwen, warmed_head(start)).head
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
