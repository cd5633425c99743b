import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

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
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr + answer.stdout
    assert "--recipe" in answer.stderr + answer.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("prepare", "scans.csv", "out"),
        ("doctor", "scans.csv"),
        ("pairs", "prepared", "out"),
        ("warm-up", "out"),
        ("features", "prepared"),
        ("train", "run", "--prepared", "p", "--pairs", "pairs.jsonl"),
        ("experiment", "out", "--prepared", "p"),
        ("recipe",),
    ],
)
def test_own_data_have_no_usual_recipe(command: tuple[str, ...]) -> None:
    with refusal("E_RECIPE", "one of ctscribe, paper_gauss, .*, tiny, but none is given"):
        app(command, exit_on_error=False, result_action="return_value")


def test_only_phantoms_have_one() -> None:
    arguments = {
        command: argument
        for command in app
        if not command.startswith("-")
        for argument in app[command].assemble_argument_collection()
        if "--recipe" in argument.names
    }
    usual = {command: each.field_info.default for command, each in arguments.items()}
    assert {command: name for command, name in usual.items() if name is not None} == {
        "phantom": "tiny",
        "demo": "tiny",
    }


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


NOTHING_NEW = {
    *("calibrate", "doctor", "env", "evidence", "features", "import-features", "recipe", "serve"),
    "tune",
}
"""They print, or add to the run or the prepared studies that they are given."""


def test_whatever_a_command_makes_its_place_is_called_out() -> None:
    places = {
        command: {
            name for each in app[command].assemble_argument_collection() for name in each.names
        }
        for command in app
        if not command.startswith("-")
    }
    assert {command for command, names in places.items() if "--out" not in names} == NOTHING_NEW


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    app(words, exit_on_error=False, result_action="return_value")
    return capsys.readouterr().out


def test_editors_check_a_recipe_by_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(told(capsys, "recipe", "--schema"))
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    for name in ("tiny", "paper_heter", "ctscribe"):
        printed = told(capsys, "recipe", name)
        assert printed.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
        knobs = yaml.safe_load(printed)
        checker.validate(knobs)
        assert json.loads(told(capsys, "recipe", name, "--json")) == knobs
    for wrong in ("train: {epocs: 3}", "train: {epochs: 0}", "trian: {}"):
        assert not checker.is_valid(yaml.safe_load(wrong)), wrong
    sections = schema["$defs"].values()
    assert all(knob.get("description") for each in sections for knob in each["properties"].values())
    with refusal("E_OPTION", "--schema is that of all recipes"):
        told(capsys, "recipe", "tiny", "--schema")


def test_the_doctor_answers_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "scans.csv").write_text(
        "volume,patient,scan,split,findings,impression\nno.nii.gz,1,1,train,Clear.,Normal.\n"
    )
    words = ("doctor", str(tmp_path / "scans.csv"), "--recipe", "tiny", "--json")
    with refusal("E_UNHEALTHY"):
        told(capsys, *words)
    found = json.loads(capsys.readouterr().out)
    assert found["num_volumes"] == 0
    assert found["problems"]["E_MISSING"]["count"] == 1
    assert set(found["need"]) == {"slices", "all"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_a_shell_learns_to_complete(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    words = (sys.executable, "-m", "ctscribe.cli", "--install-completion", "--shell", "bash")
    subprocess.run(words, check=True, env=environment, cwd=tmp_path, capture_output=True)
    script = f"""
        . {tmp_path}/.bashrc
        COMP_WORDS=(ctscribe pre) COMP_CWORD=1
        $(complete -p ctscribe | sed 's/.*-F \\([^ ]*\\).*/\\1/') ctscribe pre ctscribe
        echo "${{COMPREPLY[@]}}"
    """
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert answer.stdout.split() == ["prepare"], answer.stderr
