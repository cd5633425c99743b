"""What every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ctscribe.scan.volume import CTVolume
from tests.scans import chest

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
    """A coarse chest of ellipses; see `tests.scans.chest`."""

    def make(
        shape: tuple[int, int, int] = (64, 56, 40),
        spacing_mm: tuple[float, float, float] = (6.0, 6.0, 8.0),
    ) -> CTVolume:
        return chest(shape, spacing_mm)

    return make
