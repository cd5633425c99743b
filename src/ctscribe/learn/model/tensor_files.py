"""Safetensors files with a checksum and facts about their content in the header's metadata.

The CRC-32 covers everything else in the file. Any tool that reads safetensors can read them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ctscribe.base.errors import CtscribeError
from ctscribe.base.files import CRC32, UNPARSABLE, atomic_write, brief, parse_json

_FACTS = "__metadata__"
_BROKEN = (SafetensorError, OSError, KeyError, AttributeError, *UNPARSABLE)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Writes tensors with facts about them, atomically.

    Raises:
        CtscribeError: ``E_WRITE``.
    """
    header, data = _parts(memoryview(save(dict(tensors), {**facts})))
    header[_FACTS] = {**facts, CRC32: _crc32_of(header, data)}
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)  # as the format aligns its data
    with atomic_write(path) as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.write(data)


def facts_of(path: Path, code: str = "E_FEATURES") -> dict[str, str]:
    """Checks a file against its checksum; returns the facts that it was written with.

    The file is mapped into memory, not copied, so reading its tensors next is fast.

    Raises:
        CtscribeError: ``code`` when it is missing, damaged or without a checksum.
    """
    try:
        header, data = _parts(np.memmap(path, dtype=np.uint8, mode="r").data)
        facts: dict[str, str] = header[_FACTS]
        written = facts.pop(CRC32)
        intact = written == _crc32_of(header, data)
    except _BROKEN as error:
        raise _broken(path, code, brief(error)) from error
    if not intact:
        raise _broken(path, code, "it was changed or damaged since: it has another checksum")
    return facts


def read_tensors(path: Path, code: str = "E_FEATURES") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Checks a file; returns its tensors and its facts.

    Raises:
        CtscribeError: As `facts_of`.
    """
    facts = facts_of(path, code)
    try:
        return load_file(path), facts
    except _BROKEN as error:
        raise _broken(path, code, brief(error)) from error


def map_tensor(path: Path, name: str, code: str = "E_FEATURES") -> Tensor:
    """Maps one tensor of a file into memory, without checking the file.

    Raises:
        CtscribeError: ``code`` when the tensor is not there.
    """
    try:
        with safe_open(path, framework="pt") as file:
            mapped: Tensor = file.get_tensor(name)
    except _BROKEN as error:
        raise _broken(path, code, brief(error)) from error
    return mapped


def _parts(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The header of a safetensors file, parsed, and the bytes behind it."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = parse_json(bytes(content[8:start]).decode())
    if not isinstance(header, dict) or not isinstance(header.get(_FACTS, {}), dict):
        raise ValueError("its header is none")
    return header, content[start:]


def _crc32_of(header: Mapping[str, Any], data: memoryview) -> str:
    """Checksum of the data and the header, independent of the header's JSON formatting."""
    return f"{crc32(json.dumps(header, sort_keys=True).encode(), crc32(data)):08x}"


def _broken(path: Path, code: str, found: str) -> CtscribeError:
    return CtscribeError(code, f"{path} must be there and as it was written, but {found}")
