"""NIfTI files of every kind give the voxels and the geometry that were written."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.scan.nifti import read_nifti, read_nifti_header
from ctscribe.scan.nifti_header import choose_affine
from tests.scan.nifti_files import HEADER, NAME, put, refused, with_field


def test_reads_what_nibabel_reads(tmp_path: Path, image: nib.Nifti1Image, plain: bytes) -> None:
    values, header, notes = read_nifti(put(tmp_path, gzip.compress(plain)), NAME)
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))
    assert values.dtype == np.int16
    assert notes.codes == set()
    affine = choose_affine(header, NAME, None)
    assert affine is not None
    np.testing.assert_allclose(affine, image.affine, atol=1e-6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ", "A B ü\n=x().nii", "-a.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_type_is_told_by_content(
    tmp_path: Path, image: nib.Nifti1Image, plain: bytes, name: str, pack: Callable[..., bytes]
) -> None:
    values, _, _ = read_nifti(put(tmp_path, pack(plain), name), NAME)
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))


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


def test_nifti_2(tmp_path: Path, image: nib.Nifti1Image) -> None:
    second = nib.Nifti2Image.from_image(image)
    values, _, _ = read_nifti(put(tmp_path, second.to_bytes()), NAME)
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))


def test_several_gzip_members(tmp_path: Path, image: nib.Nifti1Image, plain: bytes) -> None:
    split = gzip.compress(plain[:700]) + gzip.compress(plain[700:])
    values, _, _ = read_nifti(put(tmp_path, split), NAME)
    np.testing.assert_array_equal(values, np.asarray(image.dataobj))


def test_metres_become_millimetres(tmp_path: Path, image: nib.Nifti1Image) -> None:
    metres = nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1e-3] * 3 + [1]))
    metres.header.set_xyzt_units("meter")
    _, header, notes = read_nifti(put(tmp_path, metres.to_bytes()), NAME)
    affine = choose_affine(header, NAME, None)
    assert affine is not None
    np.testing.assert_allclose(np.diag(affine)[:3], (-0.7, -0.7, 2.0), rtol=1e-6)
    assert "W_UNITS" in notes.codes


def test_preferred_affine_settles_a_conflict(tmp_path: Path, plain: bytes) -> None:
    changed = with_field(plain, 320, "f", 5.0)
    _, header, _ = read_nifti(put(tmp_path, changed), NAME)
    for prefer, z_mm in (("sform", 5.0), ("qform", 2.0)):
        affine = choose_affine(header, NAME, prefer)  # type: ignore[arg-type]
        assert affine is not None
        assert affine[2, 2] == pytest.approx(z_mm)


def test_no_geometry_is_none(tmp_path: Path, plain: bytes) -> None:
    _, header, _ = read_nifti(put(tmp_path, with_field(plain, 252, "2h", 0, 0)), NAME)
    assert choose_affine(header, NAME, None) is None


def test_header_scaling(tmp_path: Path, image: nib.Nifti1Image, plain: bytes) -> None:
    stored = np.asarray(image.dataobj)
    whole, _, notes = read_nifti(put(tmp_path, with_field(plain, 112, "2f", 20.0, -1024.0)), NAME)
    assert whole.dtype == np.int16
    assert "W_CLIPPED" in notes.codes
    np.testing.assert_array_equal(whole, np.clip(stored * 20.0 - 1024, -32768, 32767))
    half, _, _ = read_nifti(put(tmp_path, with_field(plain, 112, "2f", 0.5, 3.25)), NAME)
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


def test_extensions_are_stepped_over_or_refused(tmp_path: Path, plain: bytes) -> None:
    values = plain[HEADER:]
    good = with_field(plain[:HEADER], 108, "f", 384.0)[:348] + b"\x01\0\0\0"
    block = struct.pack("<2i", 32, 6) + b"x" * 24
    found, _, _ = read_nifti(put(tmp_path, good + block + values), NAME)
    assert found.tobytes("F") == values
    huge = struct.pack("<2I", 1 << 31, 6) + b"x" * 24
    assert refused(put(tmp_path, good + huge + values)).code == "E_HEADER"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".HDR", ".IMG")])
def test_pairs(
    tmp_path: Path, image: nib.Nifti1Image, version: int, suffixes: tuple[str, str]
) -> None:
    kind = nib.Nifti1Pair if version == 1 else nib.Nifti2Pair
    nib.save(kind(np.asarray(image.dataobj), image.affine), tmp_path / "plain.img")
    pack = gzip.compress if suffixes[0].endswith(".gz") else bytes
    paths = [tmp_path / f"a{suffix}" for suffix in suffixes]
    for path, plain in zip(paths, ("plain.hdr", "plain.img"), strict=True):
        path.write_bytes(pack((tmp_path / plain).read_bytes()))
    for path in paths:
        values, header, _ = read_nifti(path, NAME)
        np.testing.assert_array_equal(values, np.asarray(image.dataobj))
        affine = choose_affine(header, NAME, None)
        assert affine is not None
        np.testing.assert_allclose(affine, image.affine, atol=1e-6)
        assert read_nifti_header(path, NAME).shape == image.shape
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    assert refused(paths[0]).code == "E_TRUNCATED"
    paths[1].unlink()
    assert refused(paths[0]).code == "E_NIFTI_PAIR"
