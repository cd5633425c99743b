"""Run folders: what was asked, with which versions, on which machine."""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ctscribe.base.about import RESEARCH_USE, __version__
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import (
    LOCK,
    differences,
    object_in,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
)
from ctscribe.base.recipe import Recipe

Result = TypeVar("Result")
_MAX_NAMED = 3
"""How many differences an error names."""
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "numpy", "pydicom", "nibabel")


def open_run(run_dir: Path, stage: str, asked: dict[str, Any]) -> Path:
    """Creates a stage's run folder, or reopens the one that was started with the same request.

    A stage calls it after all its checks, so that a refused request leaves no folder behind that
    would clash with the corrected one.

    Raises:
        CtscribeError: As `require_same_run`.
    """
    if not require_same_run(run_dir, stage, asked):
        manifest = {"stage": stage, "asked": _as_json(asked), **provenance()}
        write_json(run_dir / "run.json", manifest)
    return run_dir


def require_same_run(run_dir: Path, stage: str, asked: dict[str, Any]) -> bool:
    """Whether a folder already holds a run that was started with this request.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``, naming what differs, when it holds something else.
    """
    manifest = run_dir / "run.json"
    if manifest.exists():
        before = read_json(manifest)
        if before.get("stage") != stage:
            found = f"one of the stage {before.get('stage')}, and the stage {stage} is asked for"
        elif changed := _changes(before.get("asked", {}), asked):
            found = f"one that differs in {changed}"
        else:
            return True
        raise CtscribeError(
            "E_RUN_EXISTS", f"{run_dir} must be new or hold the same run, but it holds {found}"
        )
    if run_dir.exists() and any(path.name != LOCK for path in run_dir.iterdir()):
        raise CtscribeError(
            "E_RUN_EXISTS", f"{run_dir} must be new or hold a run, but it holds other files"
        )
    return False


def _as_json(asked: dict[str, Any]) -> dict[str, Any]:
    """The request as it is read back from JSON, with lists in place of tuples."""
    return dict(json.loads(json.dumps(asked)))


def _changes(before: object, asked: dict[str, Any]) -> str:
    """The first differences between two requests, in words; empty if there are none."""
    found = [*differences(before, _as_json(asked))]
    more = [f"{len(found) - _MAX_NAMED} more"] if len(found) > _MAX_NAMED else []
    return " and ".join([*found[:_MAX_NAMED], *more])


def claim(path: Path, asked: dict[str, Any], *, has_parts: bool = False) -> None:
    """Records the request for a file or folder that is written bit by bit, in a file beside it.

    ``has_parts`` says that parts of it exist already, made for the recorded request.

    Raises:
        CtscribeError: ``E_RUN_EXISTS`` when it or a part exists and the request differs.
    """
    note = path.with_name(f"{path.stem}.asked.json")
    before = read_json(note) if note.exists() else None
    if (path.exists() or has_parts) and before != _as_json(asked):
        changed = _changes(before, asked) if before else "what it was asked for, not noted"
        raise CtscribeError(
            "E_RUN_EXISTS", f"{path} must be new or made of the same, but it differs in {changed}"
        )
    if before != _as_json(asked):
        write_json(note, asked)


def is_made_of(path: Path, inputs: dict[str, Any]) -> bool:
    """Whether a stage's JSON exists and lists exactly these ``inputs``."""
    return path.exists() and read_json(path).get("inputs") == inputs


def is_writers_run(folder: Path) -> bool:
    """Whether a folder is the run of a model that writes: trained, or reinforced."""
    manifest = folder / "run.json"
    return manifest.is_file() and read_json(manifest).get("stage") in ("train", "reinforce")


def recipe_of(run_dir: Path) -> Recipe:
    """The recipe a training run or an experiment was started with.

    Raises:
        CtscribeError: ``E_MISSING`` when the folder holds no run, ``E_RUN`` when what it holds
            was not made with a recipe of this version.
    """
    asked = object_in(read_json(run_dir / "run.json"), "asked")
    try:
        return Recipe.model_validate(asked.get("recipe"))
    except ValidationError as error:
        first = error.errors()[0]
        knob = ".".join(["recipe", *map(str, first["loc"])])
        is_unknown = first["type"] == "extra_forbidden"
        found = " is no knob of it" if is_unknown else f": {first['msg'].lower()}"
        raise CtscribeError(
            "E_RUN", f"{run_dir} must hold a run of this version, but {knob}{found}"
        ) from error


def read_result(path: Path, kind: type[Result]) -> Result:
    """Reads the JSON that a finished stage wrote, as a ``kind``.

    Raises:
        CtscribeError: As `read_json`; ``E_JSON`` where it does not fit ``kind``.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        found = error.errors()[0]["msg"].lower()
        raise CtscribeError("E_JSON", f"{path} must be a {kind.__name__}, but {found}") from error


def weights_sha256(folder: Path) -> str:
    """Hash of a checkpoint's weight files."""
    hashes = [sha256_of_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else sha256_of_json(hashes)


def start_sha256(start: str | Path) -> str:
    """Hash of the weights in a folder, or the name itself where it is a hub id."""
    folder = Path(start)
    return weights_sha256(folder) if any(folder.glob("*.safetensors")) else str(start)


def provenance() -> dict[str, Any]:
    """Versions, commit and machine, without names of people, hosts or paths."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "ctscribe": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "use": RESEARCH_USE,
    }


def _commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
