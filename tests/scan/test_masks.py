import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.scan.boxes import boxes_of_mask
from ctscribe.scan.masks import read_masks
from tests.refusals import refusal

LPS = np.array([[-2.0, 0, 0, 100], [0, -3.0, 0, 60], [0, 0, 5.0, -40], [0, 0, 0, 1]])
SOLID = np.ones((6, 6, 6), np.uint8)
NOISE = (np.random.default_rng(0).random((2, 10, 12, 8)) > 0.5).astype(np.uint8)


def plain(mask: np.ndarray, *edits: tuple[str, object]) -> bytes:
    """A NIfTI file with fields of its header changed."""
    whole = nib.Nifti1Image(mask, LPS).to_bytes()
    header = nib.Nifti1Header(whole[:348], check=False)
    for field, value in edits:
        header[field] = value
    return bytes(header.binaryblock + whole[348:])


def content(mask: np.ndarray, *edits: tuple[str, object]) -> bytes:
    """The same, packed."""
    return gzip.compress(plain(mask, *edits), 1, mtime=0)


def write(path: Path, mask: np.ndarray, *edits: tuple[str, object]) -> Path:
    path.write_bytes(content(mask, *edits))
    return path


def test_each_piece_gets_a_box_in_ras_millimetres(tmp_path: Path) -> None:
    mask = np.zeros((10, 12, 8), np.uint8)
    mask[1:4, 2:3, 5:8] = 1
    mask[7, 9, 0] = 3
    (read,), affine = read_masks(write(tmp_path / "m.nii.gz", mask), "m")
    boxes = boxes_of_mask(read, affine)
    # x falls with the index: 100 − 2·3 … 100 − 2·1, and so does y
    assert boxes == [((94, 54, -15), (98, 54, -5)), ((86, 33, -40), (86, 33, -40))]


@pytest.mark.parametrize("axis", [0, 3])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<f4", ">f8"])
def test_masks_lie_at_either_end_of_four_dimensions(tmp_path: Path, axis: int, dtype: str) -> None:
    path = write(tmp_path / "m.nii.gz", np.moveaxis(NOISE, 0, axis).astype(dtype))
    read, affine = read_masks(path, "m")
    for one, mask in zip(read, NOISE, strict=True):
        np.testing.assert_array_equal(one, mask)
    np.testing.assert_array_equal(affine, LPS)


def test_the_headers_own_scaling_decides_what_is_zero(tmp_path: Path) -> None:
    scaling = (("scl_slope", 2), ("scl_inter", -2))  # stored 1 means 0, stored 0 means −2
    write(tmp_path / "m.nii", NOISE[0], *scaling)
    (read,), _ = read_masks(tmp_path / "m.nii", "m")
    np.testing.assert_array_equal(read, NOISE[0] == 0)


def test_masks_may_be_emptier_than_any_ct(tmp_path: Path) -> None:
    start = plain(SOLID, ("dim", [4, 512, 512, 300, 4, 1, 1, 1]))[:352]
    path = tmp_path / "empty.nii.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(start)
        for _ in range(300):
            file.write(bytes(4 << 18))
    assert 400 * path.stat().st_size < (300 << 20), "a CT of this kind is refused"
    masks, _ = read_masks(path, "empty")
    assert [mask.any() for mask in masks] == [False] * 4


def test_corners_that_touch_are_one_piece() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert len(boxes_of_mask(mask, np.eye(4))) == 1
    assert boxes_of_mask(np.zeros((4, 4, 4), bool), np.eye(4)) == []


def with_other_check() -> bytes:
    """The CRC-32 of RFC 1952, the first four of the last eight bytes, altered."""
    packed = bytearray(content(NOISE))
    packed[-8] ^= 1
    return bytes(packed)


def with_other_voxels() -> bytes:
    """One bit of stored, uncompressed DEFLATE blocks altered; only the CRC-32 can tell."""
    packed = bytearray(gzip.compress(plain(NOISE), 0, mtime=0))
    packed[len(packed) // 2] ^= 1
    return bytes(packed)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"no mask", "does not begin as one"),
    "nothing": (lambda: b"", "its file has no bytes"),
    "cut": (lambda: content(NOISE)[:-200], "it ends early"),
    "cut before its check": (lambda: content(NOISE)[:-8], "it ends early"),
    "cut inside": (
        lambda: gzip.compress(gzip.decompress(content(NOISE))[:-100]),
        r"header promises, but holds 1820",
    ),
    "other check": (with_other_check, "its bytes were altered"),
    "other voxels": (with_other_voxels, "its bytes were altered"),
    "followed": (lambda: content(NOISE) + b"more" * 16, "other bytes follow"),
    "flat": (lambda: content(SOLID[0]), "its header says 2"),
    "five": (lambda: content(SOLID[None, None]), "its header says 5"),
    "huge": (
        lambda: content(SOLID, ("dim", [4, 32767, 32767, 32767, 9, 1, 1, 1])),
        "at most 2147483648 voxels",
    ),
    "colours": (lambda: content(SOLID, ("datatype", 128)), "but holds RGB colours"),
    "soft": (lambda: content(SOLID * np.float32(0.25)), "hold another, as probabilities do"),
    "holes": (lambda: content(SOLID * np.float32(np.nan)), "hold another, as probabilities do"),
    "nowhere": (lambda: content(SOLID, ("sform_code", 0)), "sets neither sform nor qform"),
    "far": (lambda: content(SOLID, ("srow_x", [1e9, 0, 0, 0])), "but has none"),
    "turned": (
        lambda: content(SOLID, ("qform_code", 1), ("qoffset_x", 900.0)),
        "its sform and qform disagree",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_mask_is_refused_by_its_own_name(tmp_path: Path, kind: str) -> None:
    make, found = BAD[kind]
    path = tmp_path / "m.nii.gz"
    path.write_bytes(make())
    with refusal("E_MASK", rf"^m.nii.gz must [^\n]*{found}.*; export.*mask") as caught:
        read_masks(path, path.name)
    assert str(tmp_path) not in str(caught.value)
    assert "--prefer" not in str(caught.value), "no option of the commands that read masks"


def test_what_cannot_be_opened_is_refused_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone")
    for name in ("absent.nii.gz", "folder.nii.gz", "link.nii.gz"):
        with pytest.raises(CtscribeError, match=rf"^{name} must .*E_MASK") as caught:
            read_masks(tmp_path / name, name)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2"])
@pytest.mark.parametrize("highest", [1, 2, 5, 255])
def test_masks_saved_through_real_numbers(tmp_path: Path, dtype: str, highest: int) -> None:
    """nibabel spreads what get_fdata gave over its type's range, and scales it back inexactly."""
    mask = np.zeros((6, 7, 8))
    mask[1:3, 2:4, 3:6], mask[5, 5, 5] = 1, highest
    image = nib.Nifti1Image(mask, LPS)
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "m.nii.gz")
    (read,), _ = read_masks(tmp_path / "m.nii.gz", "m")
    np.testing.assert_array_equal(read, mask != 0)


@pytest.mark.parametrize(("stored", "slope"), [(255, 0.00392157), (1, 1.00000006), (100, 0.01)])
def test_scaling_may_miss_1_by_its_rounding(tmp_path: Path, stored: int, slope: float) -> None:
    path = write(tmp_path / "m.nii.gz", SOLID * np.uint8(stored), ("scl_slope", slope))
    assert read_masks(path, "m")[0][0].all()


@pytest.mark.parametrize(
    ("values", "slope"),
    [
        (np.linspace(0, 1, 216, dtype="f4"), 0),
        (np.full(216, 0.998, "f4"), 0),
        (np.arange(216, dtype="u1"), 1 / 255),
        (np.arange(216, dtype="u1") % 11, 0.1),
        (np.arange(216, dtype="u1") % 3, 0.5),
    ],
)
def test_probabilities_are_no_mask(tmp_path: Path, values: np.ndarray, slope: float) -> None:
    path = write(tmp_path / "m.nii.gz", values.reshape(6, 6, 6), ("scl_slope", slope))
    with refusal("E_MASK", "probabilities"):
        read_masks(path, "m")


def test_a_mask_beside_an_unset_pixdim_0(tmp_path: Path) -> None:
    whole = nib.Nifti1Image(SOLID, LPS)
    whole.set_sform(None, code=0)
    whole.set_qform(LPS, code=1)
    content = bytearray(whole.to_bytes())
    assert content[76:80] == np.float32(1).tobytes()
    content[76:80] = bytes(4)
    (tmp_path / "m.nii").write_bytes(bytes(content))
    np.testing.assert_allclose(read_masks(tmp_path / "m.nii", "m")[1], LPS, atol=1e-4)
