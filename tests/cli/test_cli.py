import subprocess
import sys

import pytest

from ctscribe.cli.app import app


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
