"""What training reads back, damaged; and disks that are full when it writes."""

import os
import pickle
from pathlib import Path

import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.learn.train.callback import seal
from tests.damage import flip_bit, full_disk
from tests.learn.train.runs import Train, assert_equal_runs, make_recipe
from tests.refusals import refusal


def interrupted(run: Train, folder: Path, pairs: Path) -> Path:
    """A run that was ended behind its first checkpoint, whose folder is returned."""

    def interrupt(step: int, total: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, pairs, make_recipe(), progress=interrupt)
    return folder / "checkpoint-3"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "beta.json"]
)
def test_a_flipped_bit_in_a_checkpoint_is_one_sentence(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], name: str
) -> None:
    checkpoint = interrupted(run, tmp_path / "run", pairs_of["origin"])
    flip_bit(checkpoint / name)
    with refusal("E_CHECKPOINT", f"{name} is not what was written"):
        run(tmp_path / "run", pairs_of["origin"], make_recipe())


class _Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_strangers_pickle_is_one_sentence_and_is_not_run(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], name: str
) -> None:
    checkpoint = interrupted(run, tmp_path / "run", pairs_of["origin"])
    (checkpoint / name).write_bytes(pickle.dumps(_Opens(tmp_path / "ran")))
    seal(tmp_path / "run", 3, 1.0, (3, 1.0))  # as whoever changed it may
    with refusal("E_CHECKPOINT", "must be as it was written, but"):
        run(tmp_path / "run", pairs_of["origin"], make_recipe())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("num_bytes", [0, 2_000, 60_000, 1_000_000, 3_000_000, 6_000_000])
def test_on_a_full_disk_a_run_ends_in_one_sentence_and_goes_on_later(
    tmp_path: Path, run: Train, pairs_of: dict[str, Path], num_bytes: int
) -> None:
    pairs, recipe = pairs_of["origin"], make_recipe(train={"epochs": 1})
    with pytest.raises(CtscribeError, match="E_WRITE"), full_disk(num_bytes):
        run(tmp_path / "cut", pairs, recipe)
    run(tmp_path / "cut", pairs, recipe)
    run(tmp_path / "whole", pairs, recipe)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", tolerance=0)
