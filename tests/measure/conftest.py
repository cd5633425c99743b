"""Four small prepared studies, and runs of a random model that sees them or is blind."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow
from ctscribe.data.prepared import Prepared
from tests.models import write_run
from tests.studies import random_frames, study_row, write_prepared


@pytest.fixture(scope="session")
def studies() -> list[StudyRow]:
    nodule = {"findings": "A nodule is seen in the right lung.", "impression": "Lung nodule."}
    indices = (35, 30, 25, 20, 15, 10)
    return [
        study_row(f"valid_{n}_a_1.nii.gz", slice_indices=indices, **(nodule if n % 2 else {}))
        for n in range(4)
    ]


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
) -> Prepared:
    frames = random_frames(len(studies), (6, 56, 56, 3))
    return write_prepared(tmp_path_factory.mktemp("prepared"), studies, recipe, frames=frames)


@pytest.fixture(scope="session")
def make_run(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[bool], Path]:
    """(blind) → run folder; a blind tower gives zeros whatever it sees."""

    def make(blind: bool) -> Path:
        model = deepcopy(qwen)
        if blind:
            for parameter in model.model.visual.merger.parameters():
                torch.nn.init.zeros_(parameter)
        return write_run(tmp_path_factory.mktemp("run"), recipe, model, tokenizer)

    return make
