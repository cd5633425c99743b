"""What every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctscribe.volume.ct import CTVolume

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
    """A chest of ellipses in HU: body, two lungs, air around; RAS, noise of 10 HU."""

    def make(
        shape: tuple[int, int, int] = (64, 56, 40),
        spacing_mm: tuple[float, float, float] = (6.0, 6.0, 8.0),
    ) -> CTVolume:
        grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
        x, y, z = grid
        hu = np.full(shape, -1000.0)
        hu[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = 40
        for side in (-0.42, 0.42):
            hu[((x - side) / 0.33) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850
        hu += np.random.default_rng(0).normal(0, 10, shape)
        affine = np.diag([*spacing_mm, 1.0])
        affine[:3, 3] = (-150.0, -120.0, 700.0)
        return CTVolume(np.asfortranarray(np.rint(hu).astype(np.int16)), affine)

    return make
