"""Each stage, stopped in each way: the same bytes after a restart, or one sentence.

A stage runs as its command in a child of this process, which has the libraries already, and is
stopped there by itself as soon as it tells of work that is done.
"""

import os
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerBase

from ctscribe.base.locks import one_writer, one_writer_of
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import write_rows
from ctscribe.cli import console
from ctscribe.cli.app import RESUMED, main
from ctscribe.learn.model import features
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.phantom.dataset import write_dataset
from tests.damage import flip_bit
from tests.holders import held
from tests.models import tiny_model, write_run
from tests.outputs import hashes
from tests.studies import prediction, random_frames, study_row, write_prepared

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs the stages in forks")

RECIPE = Recipe.model_validate(
    {
        "phantom": {
            **{"num_train_patients": 2, "num_valid_patients": 1, "matrix_px": 64},
            **{"spacing_mm": (5.5, 5.5, 8.0), "second_reconstruction": 0.0},
        },
        "slices": {"num_slices": 4, "frame_size_px": (56, 56)},
        "model": {"positions": "depth", "dtype": "float32", "slice_attention": True},
        "pairs": {"strategy": "origin"},
        "objective": {"beta": 0.0},
        "train": {"epochs": 3, "gradient_accumulation_steps": 2, "checkpoints_per_epoch": 1},
        "generate": {"max_new_tokens": 4, "batch_size": 1, "num_negatives": 1},
        "evaluate": {"resamples": 100},
        "warm_up": {"num_patients": 2, "epochs": 2, "batch_size": 2},
        "reinforce": {
            **{"updates": 4, "validate_every": 1, "scans_per_update": 2, "samples_per_scan": 2},
        },
        "experiment": {"betas": (0.0,)},
    }
)
Whole = Callable[[str], dict[str, str]]
PATIENTS = [("train", "train", 2), ("train", "validation", 2), ("valid", "test", 3)]


@dataclass(frozen=True)
class Stage:
    """A command, and which of its arguments is written: a folder, or a file in one."""

    command: tuple[str, ...]
    written: str
    lock: str = ""
    """The file that is locked in its folder; empty for the folder."""


STAGES = {
    "phantom": Stage(("phantom", "out", "--processes", "1"), "out"),
    "prepare": Stage(("prepare", "ct", "out", "--processes", "1", "--keep", "slices"), "out"),
    "features": Stage(("features", "prepared", "--start", "run/best"), "prepared"),
    "pairs": Stage(("pairs", "prepared", "out"), "out", "pairs.jsonl"),
    "train": Stage(
        (
            *("train", "out", "--prepared", "prepared", "--pairs", "pairs/pairs.jsonl"),
            *("--start", "run/best"),
        ),
        "out",
    ),
    "generate": Stage(
        ("generate", "run", "--prepared", "prepared"), "run", "predictions_test.jsonl"
    ),
    "evidence": Stage(("evidence", "run", "--prepared", "prepared"), "run", "evidence_test.jsonl"),
    "calibrate": Stage(("calibrate", "run", "--prepared", "prepared"), "run"),
    "card": Stage(("card", "run", "--prepared", "prepared", "--out", "out"), "out"),
    "warm-up": Stage(("warm-up", "made/out", "--processes", "1"), "made", "out"),
    "tune": Stage(("tune", "run", "--prepared", "prepared"), "run"),
    "reinforce": Stage(("reinforce", "run", "out", "--prepared", "prepared"), "out"),
    "experiment": Stage(
        ("experiment", "out", "--prepared", "prepared", "--start", "run/best"), "out"
    ),
}
WITH_RECIPE = {"phantom", "prepare", "features", "pairs", "train", "warm-up", "experiment"}
GOES_ON = {
    "phantom": "Drawing patients: continues, 2 of 3 patients are there",
    "prepare": "Preparing volumes: continues, 2 of 3 volumes are there",
    "features": "Storing features: continues, 4 of 7 volumes are there",
    "train": "Training: continues, 1 of 3 updates are there",
    "generate": "Writing reports: continues, 2 of 3 reports are there",
    "evidence": "Looking for evidence: continues, 2 of 3 reports are there",
    "calibrate": "Calibrating",
    "card": "Measuring image dependence: continues, 9 of 36 readings are there",
    "warm-up": "Warming up the tower: continues, 300 of 1000 thousandths are there",
    "tune": "Tuning: continues, 5 of 11 ways of writing are there",
    "reinforce": "Reinforcing: continues, 2 of 4 updates are there",
}
"""What those say that can be stopped at work.

Pairs is one file that appears whole; an experiment is killed at work by the tests of the demo.
"""


@pytest.fixture(scope="module")
def ground(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a stage reads."""
    folder = tmp_path_factory.mktemp("ground")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE.model_dump(mode="json")))
    studies = [
        study_row(
            f"{source}_{split}{number}_a_1.nii.gz",
            **{"source_split": source, "split": split, "labels": (number % 2,) * 18},
        )
        for source, split, count in PATIENTS
        for number in range(count)
    ]
    frames = random_frames(len(studies), (4, 56, 56, 3))
    write_prepared(folder / "prepared", studies, RECIPE, frames=frames)
    qwen = tiny_model(tokenizer, decided=True)
    attach_finding_queries(qwen)
    write_run(folder / "run", RECIPE, qwen, tokenizer)
    tests = [prediction(study) for study in studies if study.split == "test"]
    write_rows(folder / "written.jsonl", tests)
    write_dataset(folder / "ct", RECIPE.phantom)
    run(Stage(("pairs", "prepared", "pairs"), "pairs"), folder, "pairs")
    return folder


def run(stage: Stage, folder: Path, name: str, number: int | None = None) -> tuple[int, str]:
    """Exit status and what was said; with a signal's number the command gets it at work."""
    said = folder / "said.txt"
    child = os.fork()
    if child == 0:
        try:
            _become(stage, folder, name, said, number)
        finally:
            os._exit(99)  # nothing of the tests may go on here
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, said.read_text()


def _become(stage: Stage, folder: Path, name: str, said: Path, number: int | None) -> None:
    os.chdir(folder)
    with said.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    features._PIXELS_PER_CALL = 1  # one volume at a time
    torch.set_num_threads(1)  # a fork has none of its parent's
    recipe = ("--recipe", "recipe.yaml") if name in WITH_RECIPE else ()
    warnings.filterwarnings("ignore", message="Cyclopts application invoked without tokens")
    sys.argv = ["ctscribe", *stage.command, *recipe]
    if number is not None:
        _stop_at_work(GOES_ON[name].partition(":")[0], number)
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 98
    os._exit(status)


def _stop_at_work(title: str, number: int) -> None:
    tell = console._Part.__call__

    def told(part: "console._Part", done: int, total: int) -> None:
        tell(part, done, total)
        if part._title == title and total / 2 <= done < total:
            os.kill(os.getpid(), number)

    console._Part.__call__ = told  # type: ignore[method-assign, assignment]


def fresh(ground: Path, folder: Path, name: str) -> Path:
    shutil.copytree(ground, folder)
    if name == "evidence":
        (folder / "written.jsonl").rename(folder / "run" / "predictions_test.jsonl")
    return folder


def left(folder: Path) -> list[str]:
    names = [path.name for path in folder.rglob("*")]
    return [name for name in names if name.endswith((".lock", ".part", ".partial"))]


def results(folder: Path) -> dict[str, str]:
    """What a stage wrote, but for times and for the state of generators that nothing draws from.

    Of that state a checkpoint's marker has the checksum, and so has that of a warm-up of its
    seconds.
    """
    apart = (
        *("said.txt", "rng_state.pth", "complete.json", "tfevents.ctscribe"),
        *("warm_up.json", "made/out/checkpoint.json"),
    )
    return {name: value for name, value in hashes(folder).items() if not name.endswith(apart)}


@pytest.fixture(scope="module")
def whole(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What each stage leaves when nothing happens to it, by its name."""

    @cache
    def of(name: str) -> dict[str, str]:
        folder = fresh(ground, tmp_path_factory.mktemp("whole") / name, name)
        status, said = run(STAGES[name], folder, name)
        assert status == 0, (name, said)
        assert not left(folder)
        return results(folder)

    return of


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("name", GOES_ON)
def test_stopped_at_work_it_ends_with_the_same_bytes(
    ground: Path,
    whole: Whole,
    tmp_path: Path,
    name: str,
    number: signal.Signals,
) -> None:
    folder, stage = fresh(ground, tmp_path / "run", name), STAGES[name]
    status, said = run(stage, folder, name, number)
    assert status == (-9 if number == signal.SIGKILL else 130), said
    if number == signal.SIGINT:
        assert said.splitlines()[-1] == (
            "ctscribe: interrupted; run the same command again to continue"
        )
        assert "Traceback" not in said
        assert not left(folder)
    status, said = run(stage, folder, name)
    assert status == 0, said
    assert GOES_ON[name] in said
    assert not left(folder)
    assert results(folder) == whole(name)


@pytest.mark.parametrize("name", STAGES)
def test_a_second_writer_is_refused_in_one_sentence(
    ground: Path, tmp_path: Path, name: str
) -> None:
    folder, stage = fresh(ground, tmp_path / "run", name), STAGES[name]
    written = folder / stage.written
    with held(one_writer_of(written / stage.lock) if stage.lock else one_writer(written)):
        before = results(folder)
        status, said = run(stage, folder, name)
        assert status == 1, said
        assert f"process {os.getpid()} of this machine is at work there since" in said
        assert said.splitlines()[-1].endswith("[E_BUSY]")
        assert "Traceback" not in said
        assert results(folder) == before


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own, where this process may mount one."""
    mounted = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("this process may not mount a file system")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def onto_disk(written: Path, disk: Path) -> None:
    shutil.rmtree(disk / "here", ignore_errors=True)
    shutil.move(written, disk / "here") if written.exists() else (disk / "here").mkdir()
    written.symlink_to(disk / "here")


def fill(filler: Path) -> None:
    with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
        while True:
            os.write(file.fileno(), b"0" * 4096)


ROOM = {"generate": 4 << 10, "card": 40 << 10, "tune": 40 << 10}
"""Bytes that are left on the disk for those that write little; the others have `MORE_ROOM`."""
MORE_ROOM = 400 << 10


@pytest.mark.parametrize(
    "name", ["phantom", "prepare", "features", "train", "warm-up", "reinforce", *ROOM]
)
def test_on_a_disk_that_fills_up_nothing_is_lost(
    ground: Path, whole: Whole, tmp_path: Path, disk: Path, name: str
) -> None:
    folder, stage = fresh(ground, tmp_path / "run", name), STAGES[name]
    written, filler = folder / stage.written, disk / "filler"
    onto_disk(written, disk)
    fill(filler)
    os.truncate(filler, filler.stat().st_size - ROOM.get(name, MORE_ROOM))
    status, said = run(stage, folder, name)
    filler.unlink()
    assert "Traceback" not in said
    assert status == 0 or (status == 1 and said.splitlines()[-1].endswith("[E_WRITE]")), said
    assert not left(disk)
    status, said = run(stage, folder, name)
    assert status == 0, said
    written.unlink()
    shutil.move(disk / "here", written)
    assert results(folder) == whole(name)


@pytest.mark.parametrize("fault", ["full", "read-only"])
@pytest.mark.parametrize("name", STAGES)
def test_a_disk_that_takes_nothing_is_one_sentence(
    ground: Path, tmp_path: Path, disk: Path, name: str, fault: str
) -> None:
    folder, stage = fresh(ground, tmp_path / "run", name), STAGES[name]
    onto_disk(folder / stage.written, disk)
    filler = disk / "filler"
    if fault == "full":
        fill(filler)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        before = results(disk)
        status, said = run(stage, folder, name)
        assert status == 1, said
        assert said.splitlines()[-1].endswith("[E_WRITE]"), said
        assert "Traceback" not in said
        assert results(disk) == before
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        filler.unlink(missing_ok=True)
    assert not left(disk)


READ_BACK = {
    "prepare": ("out/ledger.sqlite", "out/prepare.json", "out/slices/*.json", "out/slices/*.npy"),
    "features": ("prepared/studies.jsonl", "prepared/slices/*.json", "run/best/tokenizer.json"),
    "train": (
        *("out/checkpoint-1/*", "out/metrics.jsonl", "out/run.json", "out/best/model.safetensors"),
        *("pairs/pairs.jsonl", "prepared/features/*/train_train*", "prepared/prepare.json"),
    ),
    "generate": (
        *("run/predictions_test.*", "run/run.json", "run/best/model.safetensors"),
        *("run/best/checkpoint.json", "prepared/features/*/valid*", "prepared/studies.jsonl"),
    ),
    "evidence": ("run/evidence_test.*", "run/predictions_test.jsonl", "run/best/config.json"),
    "calibrate": ("run/calibration.json", "run/predictions_validation.*"),
    "card": ("out/reports_noise.jsonl", "out/run.json", "prepared/features/*/noise_*"),
    "warm-up": ("made/*/prepared/studies.jsonl", "made/*/prepared/slices/*.npy"),
    "tune": ("run/tune/*.jsonl", "run/contrast_*", "run/run.json"),
    "reinforce": ("out/checkpoint.safetensors", "out/metrics.jsonl", "out/best/config.json"),
}
"""Files that a stage reads when it goes on; of many of a kind the last is damaged."""


def files_read_back(folder: Path, name: str) -> list[Path]:
    found: list[Path] = []
    for pattern in READ_BACK[name]:
        matches = sorted(folder.glob(pattern))
        assert matches, pattern
        is_of_kinds = pattern.endswith(".*") or "checkpoint-" in pattern
        found += matches if is_of_kinds else matches[-1:]
    return found


@pytest.mark.parametrize("name", READ_BACK)
def test_no_flipped_bit_is_believed(ground: Path, whole: Whole, tmp_path: Path, name: str) -> None:
    stage = STAGES[name]
    stopped = fresh(ground, tmp_path / "stopped", name)
    run(stage, stopped, name, signal.SIGKILL)
    for number, victim in enumerate(files_read_back(stopped, name)):
        folder, place = tmp_path / str(number), victim.relative_to(stopped)
        shutil.copytree(stopped, folder)
        flip_bit(folder / place)
        status, said = run(stage, folder, name)
        assert "Traceback" not in said, (place, said)
        if status == 0:
            found = results(folder)
            differ = {p for p in found | whole(name) if found.get(p) != whole(name).get(p)}
            assert differ <= {str(place)}, place
        else:
            assert status == 1, (place, said)
        shutil.rmtree(folder)


def test_every_command_that_continues_is_one() -> None:
    from ctscribe.cli.options import app

    assert set(app) >= RESUMED
    assert set(GOES_ON) <= RESUMED
