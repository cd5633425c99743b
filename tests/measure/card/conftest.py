"""Four small studies, a random model, and the same model with a blind tower."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.text.prompt import QUESTION, SYSTEM
from tests.studies import random_frames, study_row, write_prepared


def _study(patient: int) -> StudyRow:
    nodule = {"findings": "A nodule is seen in the right lung.", "impression": "Lung nodule."}
    return study_row(
        f"valid_{patient}_a_1.nii.gz",
        slice_indices=(35, 30, 25, 20, 15, 10),
        **(nodule if patient % 2 else {}),
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
def prepared(
    studies: list[StudyRow], recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    frames = random_frames(len(studies), (6, 56, 56, 3))
    return write_prepared(tmp_path_factory.mktemp("prepared"), studies, recipe, frames=frames)


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
