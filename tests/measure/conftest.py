"""Four small prepared studies, and runs of a random model that sees them or is blind."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ctscribe.data.prepared import Prepared
from tests.measure.small import RECIPE, STUDIES
from tests.models import write_run
from tests.studies import random_frames, write_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    frames = random_frames(len(STUDIES), (6, 56, 56, 3))
    return write_prepared(tmp_path_factory.mktemp("prepared"), STUDIES, RECIPE, frames=frames)


@pytest.fixture(scope="session")
def make_run(
    qwen: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[bool], Path]:
    """(blind) → run folder; a blind tower gives zeros whatever it sees."""

    def make(blind: bool) -> Path:
        model = deepcopy(qwen)
        if blind:
            for parameter in model.model.visual.merger.parameters():
                torch.nn.init.zeros_(parameter)
        return write_run(tmp_path_factory.mktemp("run"), RECIPE, model, tokenizer)

    return make
