"""A prepared folder of a dozen tiny studies, their pairs, and a random starting checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import PairsConfig, Recipe
from ctscribe.base.rows import PairRow, StudyRow, write_rows
from ctscribe.data.prepared import Prepared, split_of
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.learn.pairs.build import build_pairs
from ctscribe.learn.pairs.hard import hard_negatives
from ctscribe.learn.train.stage import TrainResult, train
from tests.learn.train.bench import Bench
from tests.learn.train.runs import SPLITS, Train, make_recipe
from tests.models import tiny_model
from tests.studies import study_row, write_prepared


def _study(number: int) -> StudyRow:
    ill = number % 2
    texts = {"findings": "A nodule is seen in the right lung.", "impression": "Lung nodule."}
    return study_row(
        f"train_{number}_a_1.nii.gz",
        split=split_of(f"train_{number}", "train", SPLITS),
        labels=(ill,) * 18,
        spacing_mm=(1.0, 1.0, 1.0),
        slice_indices=(35, 25, 15, 5),
        **(texts if ill else {}),
    )


STUDIES = [_study(number) for number in range(16)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    rng = np.random.default_rng(0)
    frames = [
        rng.integers(0, 128, (4, 56, 56, 3)).astype(np.uint8) + np.uint8(100 * (number % 2))
        for number in range(len(STUDIES))
    ]
    folder = tmp_path_factory.mktemp("prepared")
    prepared = write_prepared(folder, STUDIES, make_recipe(), frames=frames)
    assert len(prepared.split("train")) == 12
    return prepared


@pytest.fixture(scope="session")
def start(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    save_model(folder, tiny_model(tokenizer), tokenizer)
    return folder


@pytest.fixture(scope="session")
def pairs_of(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pairs of each strategy."""
    studies, folder = prepared.split("train"), tmp_path_factory.mktemp("pairs")
    paths = {name: folder / name / "pairs.jsonl" for name in ("origin", "gauss", "heter", "hard")}
    for strategy, path in paths.items():
        config = PairsConfig(strategy=strategy)
        rows = _hard(studies) if strategy == "hard" else build_pairs(studies, config)
        path.parent.mkdir()
        write_rows(path, rows)
    return paths


@pytest.fixture(scope="session")
def mutual_pairs(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten studies in couples, and two that are in none: of these the first shows a third one."""
    path = tmp_path_factory.mktemp("mutual") / "heter" / "pairs.jsonl"
    path.parent.mkdir()
    studies = prepared.split("train")
    config = PairsConfig(strategy="heter", mutual=True)
    first, negative, *others = build_pairs(studies, config)
    ill = [study.volume_name for study in studies if study.labels != studies[0].labels]
    third = next(name for name in ill if name != negative.volume)
    write_rows(path, [first, negative.model_copy(update={"volume": third}), *others])
    return path


def _hard(studies: list[StudyRow]) -> list[PairRow]:
    """Each study beside one of four others that differ from it."""
    names = [study.volume_name for study in studies]
    labels = np.array([study.labels for study in studies], np.uint8)
    others = [[n for n in range(len(names)) if (labels[n] != own).any()][:4] for own in labels]
    negatives = hard_negatives(names, labels, np.array(others), seed=0)
    return [
        row
        for name, negative in zip(names, negatives, strict=True)
        for row in (PairRow(study=name, role="positive", volume=name), negative)
    ]


@pytest.fixture
def run(prepared: Prepared, start: Path) -> Train:
    def run_(
        folder: Path,
        pairs: Path,
        recipe: Recipe,
        **told: Callable[..., None],
    ) -> TrainResult:
        strategy = recipe.pairs.model_copy(update={"strategy": pairs.parent.name})
        recipe = recipe.model_copy(update={"pairs": strategy})
        return train(folder, prepared, pairs, recipe, start, **told)

    return run_


@pytest.fixture
def bench(
    prepared: Prepared, start: Path, pairs_of: dict[str, Path], mutual_pairs: Path
) -> Callable[..., Bench]:
    def make(
        per_device: int,
        accumulation: int,
        model: dict[str, object] | None = None,
        *,
        mutual: bool = False,
        again: bool | str = False,
        **objective: object,
    ) -> Bench:
        train = {
            "pairs_per_device": per_device,
            "gradient_accumulation_steps": accumulation,
            "gradient_checkpointing": again,
            "max_grad_norm": 1e9,
        }
        recipe = make_recipe(
            "heter",
            train=train,
            model=model or {},
            pairs={"mutual": mutual},
            objective={"beta": 0.3, "alpha": 0.8, **objective},
        )
        return Bench(prepared, start, mutual_pairs if mutual else pairs_of["heter"], recipe)

    return make
