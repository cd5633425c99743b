"""A run with finding queries that were never trained, and a folder of prepared studies."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow, write_rows
from ctscribe.base.runs import open_run
from ctscribe.data.prepared import write_frames
from ctscribe.data.splits import split_of
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.model.finding_queries import attach
from ctscribe.learn.model.presets import build_config, train_tokenizer
from ctscribe.text.prompt import QUESTION, SYSTEM

FRACTION = 0.45
RECIPE = Recipe.model_validate(
    {
        "pairs": {"validation_fraction": FRACTION},
        "model": {"positions": "depth", "dtype": "float32", "slice_attention": True},
        "generate": {"max_new_tokens": 6, "batch_size": 8},
        "evaluate": {"resamples": 100},
    }
)


def _study(number: int, split: str) -> StudyRow:
    name = f"{split}_{number}_a"
    return StudyRow(
        volume_name=f"{name}_1.nii.gz",
        patient_id=f"{split}_{number}",
        scan_id=name,
        source_split=split,
        findings="A nodule is seen.",
        impression="Nodule.",
        labels=tuple(int((number + finding) % 2) for finding in range(18)),
        spacing_mm=(3.0, 3.0, 3.0),
        shape_xyz=(56, 56, 100),
        slice_indices=(30, 20, 10, 0),
        position_mm=(90.0, 60.0, 30.0, 0.0),
        frame_to_ras=tuple(tuple(float(i == j) for j in range(4)) for i in range(4)),
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    studies = [_study(n, split) for split in ("train", "valid") for n in range(12)]
    splits = [split_of(s.patient_id, s.source_split, FRACTION) for s in studies]
    assert min(splits.count("validation"), splits.count("test")) > 2
    draw = np.random.default_rng(0)
    for study in studies:
        steps = draw.normal(0, 12, (4, 56, 56, 3)).cumsum(1).cumsum(2)
        frames = np.clip(128 + steps, 0, 255).astype(np.uint8)
        write_frames(folder, study.volume_name, frames, {})
    write_rows(folder / "studies.jsonl", studies)
    return folder


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
