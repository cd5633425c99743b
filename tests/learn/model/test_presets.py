from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from ctscribe.learn.model.presets import build_config


def count(config: Qwen2_5_VLConfig) -> tuple[int, float]:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    return len(model.state_dict()), sum(p.numel() for p in model.parameters()) / 1e9


def test_the_published_configuration_is_the_7b(shared_data: Path) -> None:
    folder = shared_data / "qwen2.5-vl-7b-instruct"
    tensors, billions = count(Qwen2_5_VLConfig.from_pretrained(folder))
    assert tensors == 729
    assert billions == pytest.approx(8.292, abs=5e-4)


@pytest.mark.parametrize(("preset", "published"), [("3b", 3.755), ("7b", 8.292)])
def test_presets_have_the_published_dimensions(
    shared_data: Path, preset: str, published: float
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
    config = build_config(f"qwen2.5-vl-{preset}", tokenizer)
    _, billions = count(config)
    tables, rows = {"3b": (1, 151_936), "7b": (2, 152_064)}[preset]
    padding = (rows - len(tokenizer)) * config.text_config.hidden_size * tables / 1e9
    assert billions + padding == pytest.approx(published, abs=5e-4)
    if preset == "7b":
        real = Qwen2_5_VLConfig.from_pretrained(shared_data / "qwen2.5-vl-7b-instruct")
        for name in ("image_token_id", "video_token_id", "vision_start_token_id"):
            assert getattr(config, name) == getattr(real, name)
        assert config.text_config.rope_parameters == {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        }
        ours, theirs = config.vision_config.to_dict(), real.vision_config.to_dict()
        differ = {key for key in ours if ours[key] != theirs.get(key)}
        assert differ <= {"dtype", "rope_parameters"}


def test_tiny_is_a_few_million_parameters(tokenizer: PreTrainedTokenizerBase) -> None:
    _, billions = count(build_config("tiny", tokenizer))
    assert 1e-3 < billions < 5e-3
