"""The images: built and run where Docker works, else read."""

import fnmatch
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from ctscribe.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
Instructions = list[tuple[str, str]]


def stages() -> dict[str, Instructions]:
    """The instructions of each stage, by its name."""
    found: dict[str, Instructions] = {}
    code = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, code.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, name = re.split(r"\s+AS\s+", rest)
            found[name] = [(word, image)]
        elif found:
            found[[*found][-1]].append((word, rest))
    return found


def test_a_cpu_is_the_default_and_cuda_begins_alike() -> None:
    found = stages()
    assert [*found][-1] == "cpu"
    assert found["cuda"][0] == found["cpu"][0] == ("FROM", "both")
    own = {word for name in ("cpu", "cuda") for word, _ in found[name]}
    assert own == {"FROM", "RUN", "USER"}
    shared = dict(found["both"])
    assert json.loads(shared["ENTRYPOINT"]) == ["ctscribe"]
    assert json.loads(shared["CMD"]) == ["--help"]


def test_images_are_pinned_and_nobody_runs_as_root() -> None:
    found = stages()
    for name, instructions in found.items():
        words = [word for word, _ in instructions]
        image = instructions[0][1]
        assert image in found or image == "python:${PYTHON}-slim", name
        assert not {"ADD", "MAINTAINER", "VOLUME"} & set(words), name
        installs = [rest for word, rest in instructions if word == "RUN" and "pip " in rest]
        parent = found.get(image, [])
        environment = " ".join(rest for word, rest in (*parent, *instructions) if word == "ENV")
        assert not installs or "PIP_CONSTRAINT=" in environment, name
        assert not installs or "PIP_NO_CACHE_DIR=1" in environment, name
        assert not any(re.search(r"\b(sudo|curl|wget)\b", rest) for rest in installs), name
    for name in ("cpu", "cuda"):
        assert found[name][-1] == ("USER", "scribe")


def test_what_is_copied_is_there_and_nothing_else_reaches_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    copied = {
        source
        for instructions in stages().values()
        for word, rest in instructions
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_extras_python_and_commands_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"whl\)\[(.+?)\]", DOCKERFILE):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (python,) = re.findall(r"ARG PYTHON=(\S+)", DOCKERFILE)
    assert fnmatch.fnmatch(project["requires-python"], f">={python}*")
    for command, rest in re.findall(r"docker run .* ctscribe ([a-z]+)(.*)", DOCKERFILE):
        known = {
            name for each in app[command].assemble_argument_collection() for name in each.names
        }
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    command = ["hadolint", "--failure-threshold", "warning", "--ignore", "DL3013", "Dockerfile"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def works(*words: str) -> bool:
    return shutil.which("docker") is not None and (
        subprocess.run(["docker", *words], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.slow
def test_the_image_is_built_and_runs() -> None:
    if not (works("info") and works("pull", "python:3.11-slim")):
        pytest.skip("Docker, or the image that ours is built on, is not at hand")
    build = ["docker", "build", "--quiet", "--target", "cpu", "."]
    image = subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    run = ["docker", "run", "--rm", "--network", "none", image.strip(), "env", "--json"]
    answer = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert json.loads(answer)["packages"]["fastapi"]
