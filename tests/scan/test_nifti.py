"""NIfTI files of every kind give the voxels and the geometry that were written."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.nifti import read_nifti, read_nifti_header
from ctscribe.scan.nifti_header import choose_affine

NAME = "train_1_a_1.nii.gz"
HEADER = 352
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends a file of htslib's bgzip (SAM specification, 4.1.2)."""
SHARED = [HealthCheck.function_scoped_fixture]
IMAGE = nib.Nifti1Image(
    np.random.default_rng(0).integers(-1024, 2000, (12, 10, 8), dtype=np.int16),
    np.diag([-0.7, -0.7, 2.0, 1.0]),
)
IMAGE.header.set_xyzt_units("mm")
IMAGE.set_qform(IMAGE.affine, code=1)
IMAGE.set_sform(IMAGE.affine, code=1)
PLAIN = bytes(IMAGE.to_bytes())


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


def test_reads_what_nibabel_reads(tmp_path: Path) -> None:
    values, header, notes = read_nifti(put(tmp_path, gzip.compress(PLAIN)), NAME)
    np.testing.assert_array_equal(values, np.asarray(IMAGE.dataobj))
    assert values.dtype == np.int16
    assert notes.codes == set()
    affine = choose_affine(header, NAME, None)
    assert affine is not None
    np.testing.assert_allclose(affine, IMAGE.affine, atol=1e-6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ", "A B ü\n=x().nii", "-a.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_type_is_told_by_content(tmp_path: Path, name: str, pack: Callable[..., bytes]) -> None:
    values, _, _ = read_nifti(put(tmp_path, pack(PLAIN), name), NAME)
    np.testing.assert_array_equal(values, np.asarray(IMAGE.dataobj))


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", ">i2", "u2", "i4", ">u4", "i8", "u8", "f4", ">f4", "f8"]
)
def test_all_number_types(tmp_path: Path, dtype: str) -> None:
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    order = ">" if dtype[0] == ">" else "<"
    header = nib.Nifti1Header(endianness=order)
    image = nib.Nifti1Image(values, np.diag([1.0, 1, 2, 1]), header=header, dtype=values.dtype)
    found, _, _ = read_nifti(put(tmp_path, image.to_bytes()), NAME)
    assert found.dtype == (np.float32 if "f" in dtype else np.int16)
    np.testing.assert_array_equal(found, values)


def test_header_scaling(tmp_path: Path) -> None:
    stored = np.asarray(IMAGE.dataobj)
    whole, _, notes = read_nifti(put(tmp_path, with_field(PLAIN, 112, "2f", 20.0, -1024.0)), NAME)
    assert whole.dtype == np.int16
    assert "W_CLIPPED" in notes.codes
    np.testing.assert_array_equal(whole, np.clip(stored * 20.0 - 1024, -32768, 32767))
    half, _, _ = read_nifti(put(tmp_path, with_field(PLAIN, 112, "2f", 0.5, 3.25)), NAME)
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, stored * 0.5 + 3.25)


def test_holes_in_real_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 100, (20, 20, 10)).astype(np.float32)
    values[3, 4, 5], values[4, 4, 5] = np.nan, np.inf
    path = put(tmp_path, nib.Nifti1Image(values, np.eye(4)).to_bytes())
    found, _, notes = read_nifti(path, NAME)
    assert "W_NAN" in notes.codes
    assert found[3, 4, 5] == found[4, 4, 5] == -1024
    values[:10] = np.nan
    assert refused(put(tmp_path, nib.Nifti1Image(values, np.eye(4)).to_bytes())).code == "E_NAN"


def test_extensions_are_stepped_over_or_refused(tmp_path: Path) -> None:
    values = PLAIN[HEADER:]
    good = with_field(PLAIN[:HEADER], 108, "f", 384.0)[:348] + b"\x01\0\0\0"
    block = struct.pack("<2i", 32, 6) + b"x" * 24
    found, _, _ = read_nifti(put(tmp_path, good + block + values), NAME)
    assert found.tobytes("F") == values
    huge = struct.pack("<2I", 1 << 31, 6) + b"x" * 24
    assert refused(put(tmp_path, good + huge + values)).code == "E_HEADER"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")])
def test_pairs(tmp_path: Path, version: int, suffixes: tuple[str, str]) -> None:
    kind = nib.Nifti1Pair if version == 1 else nib.Nifti2Pair
    nib.save(kind(np.asarray(IMAGE.dataobj), IMAGE.affine), tmp_path / "plain.img")
    pack = gzip.compress if suffixes[0].endswith(".gz") else bytes
    paths = [tmp_path / f"a{suffix}" for suffix in suffixes]
    for path, plain in zip(paths, ("plain.hdr", "plain.img"), strict=True):
        path.write_bytes(pack((tmp_path / plain).read_bytes()))
    for path in paths:
        values, header, _ = read_nifti(path, NAME)
        np.testing.assert_array_equal(values, np.asarray(IMAGE.dataobj))
        affine = choose_affine(header, NAME, None)
        assert affine is not None
        np.testing.assert_allclose(affine, IMAGE.affine, atol=1e-6)
        assert read_nifti_header(path, NAME).shape == IMAGE.shape
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    assert refused(paths[0]).code == "E_TRUNCATED"
    paths[1].unlink()
    assert refused(paths[0]).code == "E_NIFTI_PAIR"


@settings(max_examples=150, deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_a_flipped_bit_never_changes_a_voxel(tmp_path: Path, data: st.DataObject) -> None:
    level = data.draw(st.sampled_from([0, 1, 9]))
    packed = bytearray(gzip.compress(PLAIN, level, mtime=0))
    bit = data.draw(st.integers(10 * 8, len(packed) * 8 - 1))
    packed[bit // 8] ^= 1 << (bit % 8)
    try:
        values, _, _ = read_nifti(put(tmp_path, bytes(packed)), NAME)
    except CtscribeError:
        return
    np.testing.assert_array_equal(values, np.asarray(IMAGE.dataobj))  # an unused bit of a block


@settings(max_examples=200, deadline=None, suppress_health_check=SHARED)
@given(at=st.integers(0, HEADER - 1), byte=st.integers(0, 255))
def test_any_header_byte_gives_a_volume_or_a_sentence(tmp_path: Path, at: int, byte: int) -> None:
    changed = bytearray(PLAIN)
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
        (b"PK\x03\x04" + b"0" * 400, "E_NOT_MEDICAL", "a zip archive"),
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
    tmp_path: Path, at: int, form: str, values: tuple[Any, ...], code: str
) -> None:
    changed = with_field(PLAIN, at, form, *values)
    assert refused(put(tmp_path, changed)).code == code
    assert refused(put(tmp_path, gzip.compress(changed))).code == code


def test_what_follows_the_voxels(tmp_path: Path) -> None:
    _, _, notes = read_nifti(put(tmp_path, PLAIN + b"\0" * 100, "a.nii"), NAME)
    assert notes.codes == {"W_TRAILING"}
    assert refused(put(tmp_path, PLAIN + b"\0" * (2 << 20))).code == "E_TRAILING"
    packed = gzip.compress(PLAIN)
    assert refused(put(tmp_path, packed + b"garbage" * 9)).code == "E_TRAILING"
    _, _, notes = read_nifti(put(tmp_path, packed + b"\0" * 100), NAME)
    assert notes.codes == {"W_TRAILING"}
    _, _, notes = read_nifti(put(tmp_path, packed + BGZF_END), NAME)
    assert notes.codes == set()


@pytest.mark.parametrize(("stored", "code"), [(500_000, "E_TRUNCATED"), (1_000_000, "E_BOMB")])
def test_a_bomb_is_refused_unread(tmp_path: Path, stored: int, code: str) -> None:
    header = with_field(PLAIN[:HEADER], 40, "4h", 3, 1000, 1000, 400)
    packed = gzip.compress(header + np.random.default_rng(0).bytes(stored))
    assert refused(put(tmp_path, packed)).code == code


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.nii.gz").code == "E_MISSING"
    assert refused(tmp_path).code == "E_READ"
    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to(loop)
    assert refused(loop).code == "E_READ"


@pytest.mark.parametrize(("handedness", "sign"), [(0.0, 1), (3.0, 1), (1.0, 1), (-1.0, -1)])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("with_sform", [False, True])
def test_pixdim_0_beside_a_qform(
    tmp_path: Path, handedness: float, sign: int, order: str, with_sform: bool
) -> None:
    """Unset, or the number of dimensions: only a negative one mirrors the third axis."""
    affine = np.diag([0.7, 0.7, 2.0 * sign, 1.0])
    image = nib.Nifti1Image(IMAGE.get_fdata().astype(order + "i2"), affine)
    image.header.set_xyzt_units("mm")
    image = image.__class__(image.dataobj, affine, image.header.as_byteswapped(order))
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=int(with_sform))
    content = bytearray(image.to_bytes())
    assert struct.unpack_from(order + "f", content, 76) == (float(sign),)
    struct.pack_into(order + "f", content, 76, handedness)
    header = read_nifti_header(put(tmp_path, bytes(content), "a.nii"), NAME)
    found = choose_affine(header, NAME, "qform")
    assert found is not None
    np.testing.assert_allclose(found, affine, atol=1e-6)
    assert choose_affine(header, NAME, None) is not None
    assert not header.is_blank
