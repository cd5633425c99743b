"""Mutated files of those that stages write and read back; each must be what it was, or a sentence.

JSONL, JSON, recipes, tensors, a ledger, and checkpoints of ours and of others.
"""

import json
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np

from benchmarks.fuzz_bytes import Random, changed_bytes
from ctscribe.base.error_codes import CODES
from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import CRC32, read_json, write_json, write_plain_json
from ctscribe.base.recipe import Recipe, read_recipe
from ctscribe.base.rows import PairRow, StudyRow, read_rows, write_rows
from ctscribe.base.runs import open_run, recipe_of
from ctscribe.data.ledger import open_ledger
from ctscribe.measure.predictions import read_written
from tests.studies import study_row

SEED = 20_261_129
SCORES = {"model": {"bleu_4": 0.25}, "n": {"scans": 3}, "missing": ["valid_1_a_1"], "use": "é"}
PAIRS = [
    PairRow(study=f"train_{n}_a_1.nii.gz", role="negative", volume=None, noise_seed=n)
    for n in range(4)
]
STUDIES = [study_row(f"train_{number}_a_1.nii.gz") for number in range(5)]
ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    True,
    -1,
    0,
    10**30,
    1e308,
    "",
    "x" * 10_000,
    [[]],
    "NaN",
    "../x",
    "\0",
)


@dataclass(frozen=True)
class Kind:
    """How a sound file or folder is made, and how one is read."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    files: tuple[str, ...] = ("",)
    """Below the path, those that are mutated."""
    sealed: Callable[[bytes], bool] = lambda content: CRC32.encode() in content
    """Whether what is read of this content, if anything, must be what was written."""


def _predictions(path: Path) -> None:
    entries = [{"input_image_name": f"valid_{n}_a_1", "report": "Clear lungs."} for n in range(4)]
    write_plain_json(path, {"name": "Generated reports", "generated_reports": entries})


def _ledger(path: Path) -> None:
    with open_ledger(path, path.parent) as ledger:
        ledger.done("a", {"request": "abc"}, [])


def _find(path: Path) -> object:
    with open_ledger(path, path.parent) as ledger:
        return ledger.find("a", {"request": "abc"}, []) or {"request": "abc"}


def _write_tensors(path: Path) -> None:
    import torch

    from ctscribe.learn.model.tensor_files import write_tensors

    write_tensors(path, {"features": torch.arange(96.0).reshape(2, 3, 4, 4)}, {"name": "a"})


def _read_tensors(path: Path) -> object:
    from ctscribe.learn.model.tensor_files import read_tensors

    tensors, facts = read_tensors(path)
    return {name: tensor.tolist() for name, tensor in tensors.items()}, facts


def _write_model(path: Path) -> None:
    from ctscribe.learn.model.checkpoint import save_model
    from tests.models import tiny_model, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    save_model(path, tiny_model(tokenizer), tokenizer)


def _write_published(path: Path) -> None:
    _write_model(path)
    (path / "checkpoint.json").unlink()


def _read_model(path: Path) -> object:
    from transformers.utils import logging

    from ctscribe.learn.model.checkpoint import load_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    qwen, _ = load_model(path)
    return float(qwen.lm_head.weight.detach().double().sum())


_OF_MODELS = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
KINDS: Mapping[str, Kind] = {
    "studies": Kind(lambda p: write_rows(p, STUDIES), lambda p: read_rows(p, StudyRow)),
    "pairs": Kind(lambda p: write_rows(p, PAIRS), lambda p: read_rows(p, PairRow)),
    "scores": Kind(lambda p: write_json(p, SCORES), read_json),
    "reports.json": Kind(_predictions, read_written, sealed=lambda _: False),
    "run": Kind(
        lambda p: open_run(p, "train", {"recipe": Recipe().model_dump(mode="json")}),
        recipe_of,
        ("run.json",),
    ),
    "recipe.yaml": Kind(
        lambda p: shutil.copyfile(Path(__file__).parents[1] / "recipes" / "tiny.yaml", p),
        lambda p: read_recipe(str(p)),
        sealed=lambda _: False,
    ),
    "ledger": Kind(_ledger, _find, sealed=lambda _: True),
    "tensors": Kind(_write_tensors, _read_tensors, sealed=lambda _: True),
    "model": Kind(_write_model, _read_model, ("checkpoint.json", *_OF_MODELS), lambda _: True),
    "published": Kind(_write_published, _read_model, _OF_MODELS, sealed=lambda _: False),
}
_SHARES = np.array([6, 4, 6, 4, 4, 6, 4, 6, 1, 1])


@cache
def sound(name: str) -> tuple[Path, object]:
    """A sound file or folder of a kind, made once, and what is read from it."""
    path = Path(mkdtemp()) / name
    KINDS[name].write(path)
    return path, KINDS[name].read(path)


def outcome(number: int) -> tuple[str, str]:
    """What mutated file ``number`` is, and its end: a code, ``same``, ``other``, or a fault."""
    random = np.random.default_rng([SEED, number])
    name = str(random.choice(list(KINDS), p=_SHARES / _SHARES.sum()))
    kind, (whole, before) = KINDS[name], sound(name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        (shutil.copytree if whole.is_dir() else shutil.copyfile)(whole, path)
        part = path / str(random.choice(kind.files))
        part.write_bytes(_changed(part.read_bytes(), random))
        is_sealed = kind.sealed(part.read_bytes())
        try:
            with warnings.catch_warnings(action="ignore"):
                found = kind.read(path)
        except CtscribeError as error:
            is_sound = error.code in CODES and "\n" not in str(error) and len(str(error)) < 1000
            return name, error.code if is_sound else f"BAD SENTENCE {str(error)[:2000]}"
        except Exception:
            return name, "TRACEBACK " + traceback.format_exc()[-600:]
    if found == before:
        return name, "same"
    return name, "WRONG content under a good checksum" if is_sealed else "other"


def _changed(content: bytes, random: Random) -> bytes:
    """Changes bytes, or one value of the first line that is JSON."""
    first, _, rest = content.partition(b"\n") if content[:2] == b'{"' else (content, b"", b"")
    if random.random() < 0.5:
        return changed_bytes(content, random, [content])
    try:
        value = json.loads(first)
    except ValueError:
        return changed_bytes(content, random, [content])
    text = json.dumps(_with_odd(value, random), ensure_ascii=True)
    deep = random.random()
    if deep < 0.1:
        text = text.replace("null", "[" * 100_000, 1).replace("0", "9" * 5_000, 1)
    elif deep < 0.2:
        text = text[:-1] + "," + text[1:]  # every key twice
    return text.encode() + b"\n" + rest


def _with_odd(value: Any, random: Random) -> Any:
    """The same value with an odd one somewhere in it."""
    places: list[Any] = []
    if isinstance(value, dict | list):
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not places or random.random() < 0.2:
        return ODD[int(random.integers(len(ODD)))]
    place = places[int(random.integers(len(places)))]
    value[place] = _with_odd(value[place], random)
    return value
