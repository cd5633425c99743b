import subprocess
import sys
from pathlib import Path

import pytest

from ctscribe.base.recipe import read_recipe
from ctscribe.cli.app import app
from tests.refusals import refusal
from tests.studies import study_row, write_prepared


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", sorted(name for name in app if not name.startswith("-")))
def test_every_command_explains_itself_without_heavy_imports(command: str) -> None:
    heavy = {"torch", "numpy", "pydantic", "jaxtyping", "yaml", "matplotlib", "nibabel", "pydicom"}
    script = (
        "import sys; from ctscribe.cli.app import app\n"
        f"app([{command!r}, '--help'], exit_on_error=False, result_action='return_value')\n"
        f"loaded = {heavy} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    answer = python("-c", script)
    assert answer.returncode == 0, answer.stderr
    assert command in answer.stdout


def test_a_bad_request_is_one_sentence_and_status_1() -> None:
    answer = python("-m", "ctscribe.cli", "recipe", "tiny", "--set", "train.epocs=3")
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    assert "did you mean epochs" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--operating-point", "f1"), "must be that of a table given by --cues"),
        (("--cues", "c.csv", "--generator", "template"), "the template is asked for"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: tuple[str, ...], told: str) -> None:
    answer = python("-m", "ctscribe.cli", "generate", "run", "--prepared", "p", *options)
    assert answer.returncode == 1
    assert told in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr


def test_a_misspelt_flag_is_not_guessed() -> None:
    answer = python("-m", "ctscribe.cli", "phantom", "somewhere", "--recip", "tiny")
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr + answer.stdout
    assert "--recipe" in answer.stderr + answer.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("prepare", "scans.csv", "out"),
        ("doctor", "scans.csv"),
        ("pairs", "prepared", "out"),
        ("warm-up", "out"),
        ("train", "run", "--prepared", "p", "--pairs", "pairs.jsonl"),
        ("experiment", "out", "--prepared", "p"),
        ("recipe",),
    ],
)
def test_own_data_have_no_usual_recipe(command: tuple[str, ...]) -> None:
    with refusal("E_RECIPE", "one of ctscribe, paper_gauss, .*, tiny, but none is given"):
        app(command, exit_on_error=False, result_action="return_value")


def test_phantoms_have_one() -> None:
    answer = python("-m", "ctscribe.cli", "phantom", "--help")
    assert "[default: tiny]" in " ".join(answer.stdout.split())


def test_pairs_are_those_of_the_frames_that_were_prepared(tmp_path: Path) -> None:
    studies = [study_row(f"train_{number}_a_1.nii.gz", split="train") for number in range(4)]
    prepared = write_prepared(tmp_path / "prepared", studies, read_recipe("tiny")).folder
    out = tmp_path / "out"
    with refusal("E_PREPARED", r"slices\.frame_size_px"):
        app(
            ("pairs", str(prepared), str(out), "--recipe", "ctscribe"),
            exit_on_error=False,
            result_action="return_value",
        )
    assert not out.exists()
