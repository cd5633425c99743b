import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ctscribe.learn.model.tensor_files import facts_of, map_tensor, read_tensors, write_tensors
from tests.damage import HOSTILE, flip_bit
from tests.refusals import refusal

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"for": "these weights"})
    return tmp_path / "a.safetensors"


def test_any_tool_reads_the_file(path: Path) -> None:
    for tensors in (load_file(path), read_tensors(path)[0]):
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert facts_of(path) == read_tensors(path)[1] == {"for": "these weights"}
    assert torch.equal(map_tensor(path, "b"), TENSORS["b"])


def test_no_flipped_bit_is_believed(path: Path) -> None:
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in range(len(whole)):
        path.write_bytes(whole)
        flip_bit(path, place / len(whole))
        if b" " <= whole[place : place + 1] < b"!" and place < start:
            continue  # the padding of the header says nothing
        with refusal("E_CHECKPOINT", "must be there and as it was written"):
            read_tensors(path, "E_CHECKPOINT")


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_header_is_one_sentence(path: Path, content: bytes) -> None:
    for written in (content, len(content).to_bytes(8, "little") + content, b"\xff" * 8 + content):
        path.write_bytes(written)
        with refusal("E_FEATURES") as caught:
            read_tensors(path)
        assert len(str(caught.value)) < 600


def test_what_is_not_there_is_one_sentence(tmp_path: Path, path: Path) -> None:
    for absent in (tmp_path / "none", tmp_path):
        with refusal("E_FEATURES"):
            facts_of(absent)
    with refusal("E_FEATURES"):
        map_tensor(path, "c")
    header = {"__metadata__": [], "a": 3}
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    with refusal("E_FEATURES"):
        facts_of(path)
