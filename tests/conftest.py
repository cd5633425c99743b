"""What every test may use."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ctscribe.scan.volume import CTVolume
from tests.scans import coarse_chest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT, the real tokenizer and labelled reports, beside the checkout where they exist."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data is not here, so real material cannot be read")
    return folder


@pytest.fixture(scope="session")
def make_chest() -> Callable[..., CTVolume]:
    """See `tests.scans.coarse_chest`."""
    return coarse_chest


# What needs a model imports it inside, so that tests of scans and words start at once.


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerBase":
    """Of the tiny model; see `tests.models`."""
    from tests.models import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def qwen(tokenizer: "PreTrainedTokenizerBase") -> "Qwen2_5_VLForConditionalGeneration":
    """The tiny model, to be copied before it is changed."""
    from ctscribe.learn.model.tower import speed_up_tower
    from tests.models import tiny_model

    model = tiny_model(tokenizer, decided=True)
    speed_up_tower(model)
    return model


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of reports; see `tests.models`."""
    from tests.models import save_classifier

    return save_classifier(tmp_path_factory.mktemp("classifier"))
