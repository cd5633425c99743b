"""Eight phantoms from coarse frames to crops, and a run trained on them."""

from pathlib import Path

import pytest

from ctscribe.generate import generate
from ctscribe.pairs.build import build_training_pairs
from ctscribe.phantom.dataset import write_dataset
from ctscribe.prepare import prepare
from ctscribe.second_look.stage import second_look
from ctscribe.train.stage import train
from ctscribe.warm_up.stage import warm_up
from tests.second_look.recipe import RECIPE


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, RECIPE.phantom)
    prepare(folder, folder / "prepared", RECIPE.volume, RECIPE.slices, keep="slices")
    return folder


@pytest.fixture(scope="session")
def start(data: Path) -> Path:
    return warm_up(data / "start", RECIPE, data / "prepared", data / "truth.jsonl")


@pytest.fixture(scope="session")
def looked(data: Path, start: Path) -> Path:
    second_look(data / "prepared", data / "looked", start, RECIPE)
    return data / "looked"


@pytest.fixture(scope="session")
def run(data: Path, start: Path, looked: Path) -> Path:
    """Trained on the crops; its reports of the validation split are written."""
    build_training_pairs(looked, data, RECIPE.pairs)
    folder = data / "run"
    train(folder, looked, data / "pairs.jsonl", RECIPE, start)
    generate(folder, looked, RECIPE, "validation", folder / "predictions_validation.jsonl")
    return folder


@pytest.fixture(scope="session")
def led_otherwise(data: Path, run: Path) -> Path:
    """The same studies, their crops chosen by other weights: the run's own."""
    second_look(data / "prepared", data / "led_otherwise", run / "best", RECIPE)
    return data / "led_otherwise"
