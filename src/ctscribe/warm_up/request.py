"""What a warm-up was asked for, and whether a checkpoint is the answer to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscribe import __version__
from ctscribe.config import Recipe
from ctscribe.errors import CtscribeError
from ctscribe.files import read_json, sha256_of_file, sha256_of_json
from ctscribe.model.checkpoint import is_complete


def shipped_start(recipe: Recipe) -> Path | None:
    """The starting checkpoint that comes with ctscribe, where this recipe would make the same."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "starts", here.parents[1] / "starts"):
        written = folder / recipe.model.preset / "warm_up.json"
        if is_complete(written.parent) and _same(read_json(written)["request"], request_of(recipe)):
            return written.parent
    return None


def request_of(
    recipe: Recipe, prepared_dir: Path | None = None, where: Path | None = None
) -> dict[str, Any]:
    """Everything that decides the result."""
    sections = {"volume", "slices", "warm_up"} | ({"phantom"} if prepared_dir is None else set())
    asked: dict[str, Any] = recipe.model_dump(mode="json", include=sections)
    for knob in ("num_train_patients", "num_valid_patients", "burden", "seed"):
        asked.get("phantom", {}).pop(knob, None)  # of the data set, not of these patients
    model: dict[str, Any] = {"preset": recipe.model.preset, "weights": recipe.model.weights}
    if recipe.warm_up.tower == "lora":
        model |= {"lora_r": recipe.model.lora_r, "lora_alpha": recipe.model.lora_alpha}
    request = {**asked, "model": model, "ctscribe": __version__}
    if prepared_dir is not None:
        request["studies"] = sha256_of_file(prepared_dir / "studies.jsonl")
        request["where"] = _fingerprint(where)
    return request


def _fingerprint(where: Path | None) -> str | None:
    if where is None or not where.exists():
        return None
    if where.is_file():
        return sha256_of_file(where)
    files = sorted(path for path in where.rglob("*") if path.is_file())
    return sha256_of_json([[str(p.relative_to(where)), p.stat().st_size] for p in files])


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two requests ask for the same; a knob at its default may go without saying.

    So a checkpoint made before a knob existed is still what a recipe without that knob wants.
    """
    return _spoken(first) == _spoken(second)


def _spoken(request: Mapping[str, Any]) -> dict[str, Any]:
    defaults = Recipe().model_dump(mode="json")
    spoken = {}
    for section, asked in request.items():
        if isinstance(asked, dict):
            usual = defaults[section]
            asked = {k: v for k, v in asked.items() if k not in usual or v != usual[k]}
        spoken[section] = asked
    return spoken


def check_same(out: Path, request: Mapping[str, Any]) -> None:
    """Refuses a folder that holds anything but the finished answer to this request.

    Raises:
        CtscribeError: ``E_RUN_EXISTS``.
    """
    written = out / "warm_up.json"
    if is_complete(out) and written.exists() and _same(read_json(written)["request"], request):
        return
    raise CtscribeError(
        "E_RUN_EXISTS",
        f"{out} must be new or hold the same warm-up, but it holds something else",
    )
