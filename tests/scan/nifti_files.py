"""Bytes of a small NIfTI file, and what is said of bad ones."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.nifti import read_nifti
from ctscribe.scan.nifti_header import choose_affine

NAME = "train_1_a_1.nii.gz"
HEADER = 352
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends a file of htslib's bgzip (SAM specification, 4.1.2)."""
SHARED = [HealthCheck.function_scoped_fixture]


def put(tmp_path: Path, content: bytes, name: str = NAME) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def with_field(plain: bytes, at: int, form: str, *values: float | bytes) -> bytes:
    changed = bytearray(plain)
    struct.pack_into("<" + form, changed, at, *values)
    return bytes(changed)


def refused(path: Path) -> CtscribeError:
    with pytest.raises(CtscribeError) as caught:
        _, header, _ = read_nifti(path, NAME)
        choose_affine(header, NAME, None)
    assert caught.value.sentence.startswith(f"{NAME} must ")
    assert str(path.parent) not in caught.value.sentence
    return caught.value
