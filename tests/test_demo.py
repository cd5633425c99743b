"""The whole flow on a few patients, from the wheel, and the same flow killed again and again."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ctscribe.base.files import read_json
from ctscribe.base.recipe import read_recipe
from ctscribe.learn.warm_up import shipped_start

FEW = (
    "phantom.num_train_patients=14",
    "phantom.num_valid_patients=4",
    "splits.validation_fraction=0.3",
    "warm_up.num_patients=6",
    "warm_up.epochs=1",
    "train.epochs=1",
    "generate.max_new_tokens=24",
    "evaluate.resamples=100",
    "experiment.betas=[0.0, 0.1]",
)
TABLES = ("table1.md", "table1.csv", "table1.tex", "table2.md", "table2.csv", "table2.tex")
KILLS = {
    "cells/*/train/run.json": "prepared/slices/*.npy",
    "cells/*/scores.json": "cells/*/scores.json",
}
"""What appears when the demo is killed, and what is done by then and not done again."""


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel's files lie, outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("ctscribe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def command(out: Path) -> list[str]:
    overrides = [word for knob in FEW for word in ("--set", knob)]
    return [sys.executable, "-m", "ctscribe.cli", "demo", "--out", str(out), *overrides]


def outside(installed: Path) -> dict[str, Any]:
    """Runs a command beside the wheel's files, which then hide those of the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return {"cwd": installed.parent, "env": environment}


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, **outside(installed))


def test_the_wheel_is_what_runs(installed: Path) -> None:
    asked = "import ctscribe; print(ctscribe.__file__)"
    assert run(installed, sys.executable, "-c", asked).stdout.startswith(str(installed))


@pytest.fixture(scope="module")
def finished(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    answer = run(installed, *command(out))
    assert answer.returncode == 0, answer.stderr
    assert "Heter" in answer.stdout
    return out


def test_the_demo_starts_from_what_is_shipped() -> None:
    assert shipped_start(read_recipe("tiny")) is not None
    assert shipped_start(read_recipe("tiny", FEW)) is None


def test_the_demo_ends_with_tables_and_a_page(finished: Path) -> None:
    table = (finished / "table1.md").read_text(encoding="utf-8")
    for system in ("Origin", "Gauss", "Heter", "Ours", "Constant report", "All-normal report"):
        assert system in table
    assert "Research use only" in table
    page = (finished / "report" / "report.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert 'class="viewer"' in page
    assert "script-src 'sha256-" in page


def test_every_cell_scores_every_test_scan_once(finished: Path) -> None:
    cells = sorted((finished / "cells").iterdir())
    assert [cell.name for cell in cells] == [
        "gauss-beta0.1-seed0",
        "heter-beta0.1-seed0",
        "origin-beta0-seed0",
        "ours-beta0-seed0",
    ]
    for cell in cells:
        scores = read_json(cell / "scores.json")
        assert scores["missing"] == []
        assert scores["n"]["predicted"] == scores["n"]["scans"] >= 4


def kill_when_there(installed: Path, out: Path, mark: str) -> None:
    """Starts the demo and kills it, its workers too, as soon as a file of this pattern is there."""
    process = subprocess.Popen(
        command(out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **outside(installed),
    )
    while not any(out.glob(mark)):
        assert process.poll() is None, f"it ended without {mark}"
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stamps(out: Path, pattern: str) -> dict[Path, tuple[int, int]]:
    """Of files: they change when a file is written again, even with the same bytes."""
    found = {path: path.stat() for path in out.glob(pattern)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.mark.long
def test_killed_at_any_stage_it_continues_and_ends_with_the_same_tables(
    installed: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done: dict[Path, tuple[int, int]] = {}
    for mark, done_by_then in KILLS.items():
        kill_when_there(installed, out, mark)
        kept = stamps(out, done_by_then)
        assert kept
        done |= kept
    answer = run(installed, *command(out))
    assert answer.returncode == 0, answer.stderr
    for name in TABLES:
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert {path: stamps(out, str(path.relative_to(out)))[path] for path in done} == done


def test_a_demo_folder_of_another_request_is_refused(installed: Path, finished: Path) -> None:
    answer = run(installed, *command(finished), "--set", "train.epochs=2")
    assert answer.returncode == 1
    assert "train.epochs (1 there, 2 asked)" in answer.stderr
    assert "choose another folder" in answer.stderr
    assert "Traceback" not in answer.stderr
