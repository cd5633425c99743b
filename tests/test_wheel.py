"""The wheel, installed with its extras by pip into an environment of its own, without an index."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_LOCKED = {"bitsandbytes", "radeval"}
"""Extras of which requirements.lock has nothing; the first runs on GPUs alone."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("ctscribe-*.whl"))


def extras() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found


def test_it_offers_every_extra_and_carries_what_it_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("dist-info/METADATA"))
        offered = message_from_bytes(archive.read(metadata)).get_all("Provides-Extra", [])
    assert set(offered) == set(extras())
    suffixes = {Path(name).suffix for name in names}
    assert {".py", ".html", ".css", ".yaml", ".typed"} <= suffixes
    assert not any(name.startswith("tests/") for name in names)


def test_every_extra_is_locked(wheel: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower().replace("_", "-")
    locked = {line.partition("==")[0] for line in lock.split()}
    for extra, requirements in extras().items():
        wanted = {re.split(r"[\[<>=~!]", each)[0].lower() for each in requirements}
        assert (wanted <= locked) != (extra in NOT_LOCKED), extra


@pytest.mark.slow
def test_pip_installs_it_with_its_extras(wheel: Path, tmp_path: Path) -> None:
    """What it requires comes from the environment that runs the tests."""
    place = tmp_path / "venv"
    # an own pip would bring an own setuptools, older than torch wants
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    paths = {"base": str(place), "platbase": str(place)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    around = {str(Path(str(each.locate_file("")))) for each in distributions()}
    (site_packages / "around.pth").write_text("\n".join(sorted(around)))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str | Path) -> str:
        command = [str(word) for word in words]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index")
    run(*pip, "--no-deps", "--ignore-installed", wheel)
    run(*pip, f"{wheel}[{','.join(sorted(set(extras()) - NOT_LOCKED))}]")
    command = place / "bin" / "ctscribe"
    found = json.loads(run(command, "env", "--json"))
    assert found["packages"]["fastapi"]
    assert "preset: tiny" in run(command, "recipe", "tiny")
    where = run(python, "-c", "import ctscribe; print(ctscribe.__file__)")
    assert where.startswith(str(site_packages))
