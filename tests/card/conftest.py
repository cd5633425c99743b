"""Four small studies, a random model, and the same model with a blind tower."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.config import Recipe
from ctscribe.model.checkpoint import save_model
from ctscribe.model.presets import build_config
from ctscribe.model.tokenizer import train_tokenizer
from ctscribe.reports.prompt import QUESTION, SYSTEM
from ctscribe.rows import StudyRow, write_rows
from ctscribe.slices.cache import write_frames


def _study(patient: int) -> StudyRow:
    return StudyRow(
        volume_name=f"valid_{patient}_a_1.nii.gz",
        patient_id=f"valid_{patient}",
        scan_id=f"valid_{patient}_a",
        source_split="valid",
        findings="A nodule is seen in the right lung." if patient % 2 else "The lungs are clear.",
        impression="Lung nodule." if patient % 2 else "Normal chest.",
        labels=None,
        spacing_mm=(3.0, 3.0, 3.0),
        shape_xyz=(56, 56, 40),
        slice_indices=(35, 30, 25, 20, 15, 10),
        position_mm=(105.0, 90.0, 75.0, 60.0, 45.0, 30.0),
        frame_to_ras=tuple(tuple(float(i == j) for j in range(4)) for i in range(4)),
    )


@pytest.fixture(scope="session")
def studies() -> list[StudyRow]:
    return [_study(patient) for patient in range(4)]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "slices": {"num_slices": 6, "frame_size_px": (56, 56), "windows": "single"},
            "model": {"positions": "depth", "dtype": "float32"},
            "generate": {"max_new_tokens": 6, "batch_size": 3},
            "evaluate": {"resamples": 100},
        }
    )


@pytest.fixture(scope="session")
def prepared(studies: list[StudyRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    draw = np.random.default_rng(0)
    for study in studies:
        frames = draw.integers(0, 256, (6, 56, 56, 3), dtype=np.uint8)
        write_frames(folder, study.volume_name, frames, {})
    write_rows(folder / "studies.jsonl", studies)
    return folder


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """(blind) → run folder; a blind tower gives zeros whatever it sees."""

    def make(blind: bool) -> Path:
        folder = tmp_path_factory.mktemp("run")
        tokenizer = train_tokenizer([SYSTEM, QUESTION, "Findings: clear.\nImpression: none."] * 3)
        torch.manual_seed(0)
        config = build_config("tiny", tokenizer)
        config.text_config.initializer_range = 0.2  # far from uniform, so that differences show
        config.vision_config.initializer_range = 0.2
        qwen = Qwen2_5_VLForConditionalGeneration(config)
        if blind:
            for parameter in qwen.model.visual.merger.parameters():
                torch.nn.init.zeros_(parameter)
        save_model(folder / "best", qwen, tokenizer)
        return folder

    return make
