"""A run with finding queries that were never trained, and a folder of prepared studies."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import Recipe
from ctscribe.base.runs import open_run
from ctscribe.data.splits import split_of
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.finding_queries import attach
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.text.prompt import QUESTION, SYSTEM
from tests.studies import study_row, write_prepared

FRACTION = 0.45
RECIPE = Recipe.model_validate(
    {
        "pairs": {"validation_fraction": FRACTION},
        "model": {"positions": "depth", "dtype": "float32", "slice_attention": True},
        "generate": {"max_new_tokens": 6, "batch_size": 8},
        "evaluate": {"resamples": 100},
    }
)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    studies = [
        study_row(
            f"{split}_{number}_a_1.nii.gz",
            labels=tuple(int((number + finding) % 2) for finding in range(18)),
            findings="A nodule is seen.",
            impression="Nodule.",
        )
        for split in ("train", "valid")
        for number in range(12)
    ]
    splits = [split_of(s.patient_id, s.source_split, FRACTION) for s in studies]
    assert min(splits.count("validation"), splits.count("test")) > 2
    draw = np.random.default_rng(0)
    steps = [draw.normal(0, 12, (4, 56, 56, 3)).cumsum(1).cumsum(2) for _ in studies]
    frames = [np.clip(128 + step, 0, 255).astype(np.uint8) for step in steps]
    return write_prepared(tmp_path_factory.mktemp("prepared"), studies, RECIPE, frames=frames)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[bool], Path]:
    def make(with_queries: bool) -> Path:
        texts = [SYSTEM, QUESTION, "Findings: A nodule is seen.\nImpression: Nodule."]
        tokenizer = train_tokenizer(texts * 3, vocab_size=400)
        torch.manual_seed(0)
        qwen = Qwen2_5_VLForConditionalGeneration(build_config("tiny", tokenizer))
        if with_queries:
            attach(qwen)
        run = tmp_path / f"run-{with_queries}"
        open_run(run, "train", {"recipe": json.loads(RECIPE.model_dump_json())})
        save_model(run / "best", qwen, tokenizer)
        return run

    return make
