"""Damaged and odd NIfTI files: each gives its own sentence, none gives wrong voxels."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.nifti import read_nifti
from ctscribe.scan.nifti_header import choose_affine
from tests.scan.nifti_files import BGZF_END, HEADER, NAME, put, refused, with_field


@pytest.mark.parametrize("percent", range(1, 100, 7))
def test_cut_anywhere(tmp_path: Path, plain: bytes, percent: int) -> None:
    packed = gzip.compress(plain)
    error = refused(put(tmp_path, packed[: len(packed) * percent // 100]))
    assert error.code in ("E_TRUNCATED", "E_NOT_NIFTI", "E_CHECKSUM")
    assert refused(put(tmp_path, packed[:-4])).code == "E_TRUNCATED"


def test_wrong_checksum_and_size(tmp_path: Path, plain: bytes) -> None:
    packed = bytearray(gzip.compress(plain))
    for place in (-8, -1):
        damaged = packed.copy()
        damaged[place] ^= 1
        assert refused(put(tmp_path, bytes(damaged))).code == "E_CHECKSUM"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_never_changes_a_voxel(
    tmp_path: Path, image: nib.Nifti1Image, plain: bytes, data: st.DataObject
) -> None:
    level = data.draw(st.sampled_from([0, 1, 9]))
    packed = bytearray(gzip.compress(plain, level, mtime=0))
    bit = data.draw(st.integers(10 * 8, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << (bit % 8)
    try:
        values, _, _ = read_nifti(put(tmp_path, bytes(packed)), NAME)
    except CtscribeError:
        return
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))  # an unused bit of a block


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, HEADER - 1), byte=st.integers(0, 255))
def test_any_header_byte_gives_a_volume_or_a_sentence(
    tmp_path: Path, plain: bytes, at: int, byte: int
) -> None:
    changed = bytearray(plain)
    changed[at] = byte
    try:
        values, header, _ = read_nifti(put(tmp_path, bytes(changed)), NAME)
        choose_affine(header, NAME, None)
    except CtscribeError:
        return
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "E_EMPTY", "no bytes"),
        (b"<!DOCTYPE html><html>", "E_NOT_MEDICAL", "a web page"),
        (b"<html>", "E_NOT_MEDICAL", "a web page"),
        (b"version https://git-lfs", "E_NOT_MEDICAL", "a Git LFS pointer"),
        (b"PK\x03\x04" + b"0" * 400, "E_NOT_MEDICAL", "a zip archive"),
        (b"\x28\xb5\x2f\xfd" + b"0" * 400, "E_NOT_MEDICAL", "Zstandard"),
        (b"x" * 1000, "E_NOT_NIFTI", "does not begin as one"),
        (b"\x5c\x01\0\0" + b"\0" * 1000, "E_NOT_NIFTI", "does not begin as one"),
        (gzip.compress(b"hello", mtime=0), "E_NOT_NIFTI", "does not begin as one"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, code: str, says: str) -> None:
    error = refused(put(tmp_path, content))
    assert (error.code, says in error.sentence) == (code, True)


@pytest.mark.parametrize(
    ("at", "form", "values", "code"),
    [
        (40, "4h", (3, 0, 10, 8), "E_DIMENSIONS"),
        (40, "4h", (3, -12, 10, 8), "E_DIMENSIONS"),
        (40, "h", (0,), "E_DIMENSIONS"),
        (40, "h", (9,), "E_DIMENSIONS"),
        (40, "4h", (3, 32767, 32767, 32767), "E_TOO_LARGE"),
        (40, "4h", (3, 32767, 32767, 2), "E_TRUNCATED"),
        (40, "4h", (3, 12, 10, 9), "E_TRUNCATED"),
        (40, "3h", (2, 12, 80), "E_TOO_FEW_SLICES"),
        (40, "4h", (3, 12, 80, 1), "E_TOO_FEW_SLICES"),
        (40, "5h", (4, 12, 10, 4, 2), "E_4D"),
        (70, "2h", (128, 24), "E_DATATYPE"),
        (70, "2h", (32, 64), "E_DATATYPE"),
        (70, "2h", (1, 1), "E_DATATYPE"),
        (70, "2h", (999, 16), "E_DATATYPE"),
        (108, "f", (0.0,), "E_HEADER"),
        (108, "f", (-352.0,), "E_HEADER"),
        (108, "f", (float("nan"),), "E_HEADER"),
        (108, "f", (1e9,), "E_HEADER"),
        (344, "4s", (b"ni1\0",), "E_NIFTI_PAIR"),
        (280, "f", (float("nan"),), "E_AFFINE"),
        (280, "4f", (0.0, 0.0, 0.0, 0.0), "E_AFFINE"),
        (312 + 8, "f", (5.0,), "E_GEOMETRY_CONFLICT"),
        (256, "f", (5.0,), "E_AFFINE"),
    ],
)
def test_impossible_headers(
    tmp_path: Path, plain: bytes, at: int, form: str, values: tuple[Any, ...], code: str
) -> None:
    changed = with_field(plain, at, form, *values)
    assert refused(put(tmp_path, changed)).code == code
    assert refused(put(tmp_path, gzip.compress(changed))).code == code


@pytest.mark.parametrize(
    ("at", "form", "values", "warning"),
    [
        (72, "h", (8,), "W_BITPIX"),
        (112, "2f", (0.0, -1024.0), "W_SLOPE"),
        (112, "2f", (float("inf"), 0.0), "W_SLOPE"),
        (112, "2f", (1.0, float("nan")), "W_SLOPE"),
        (40, "5h", (4, 12, 10, 8, 1), "W_4D"),
        (123, "b", (0,), "W_UNITS"),
    ],
)
def test_oddities_are_warned_about(
    tmp_path: Path,
    image: nib.Nifti1Image,
    plain: bytes,
    at: int,
    form: str,
    values: tuple[Any, ...],
    warning: str,
) -> None:
    found, _, notes = read_nifti(put(tmp_path, with_field(plain, at, form, *values)), NAME)
    assert warning in notes.codes
    np.testing.assert_array_equal(found, np.asarray(image.dataobj))


def test_what_follows_the_voxels(tmp_path: Path, plain: bytes) -> None:
    _, _, notes = read_nifti(put(tmp_path, plain + b"\0" * 100, "a.nii"), NAME)
    assert notes.codes == {"W_TRAILING"}
    assert refused(put(tmp_path, plain + b"\0" * (2 << 20))).code == "E_TRAILING"
    packed = gzip.compress(plain)
    assert refused(put(tmp_path, packed + b"garbage" * 9)).code == "E_TRAILING"
    _, _, notes = read_nifti(put(tmp_path, packed + b"\0" * 100), NAME)
    assert notes.codes == {"W_TRAILING"}
    _, _, notes = read_nifti(put(tmp_path, packed + BGZF_END), NAME)
    assert notes.codes == set()


@pytest.mark.parametrize(("stored", "code"), [(500_000, "E_TRUNCATED"), (1_000_000, "E_BOMB")])
def test_a_bomb_is_refused_unread(tmp_path: Path, plain: bytes, stored: int, code: str) -> None:
    header = with_field(plain[:HEADER], 40, "4h", 3, 1000, 1000, 400)
    packed = gzip.compress(header + np.random.default_rng(0).bytes(stored))
    assert refused(put(tmp_path, packed)).code == code


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.nii.gz").code == "E_MISSING"
    assert refused(tmp_path).code == "E_READ"
    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to(loop)
    assert refused(loop).code == "E_READ"
