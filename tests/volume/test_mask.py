from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.errors import CtscribeError
from ctscribe.volume.mask import boxes_of_mask, read_masks

LPS = np.array([[-2.0, 0, 0, 100], [0, -3.0, 0, 60], [0, 0, 5.0, -40], [0, 0, 0, 1]])


def write(path: Path, mask: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), LPS), path)
    return path


def test_each_piece_gets_a_box_in_ras_millimetres(tmp_path: Path) -> None:
    mask = np.zeros((10, 12, 8), bool)
    mask[1:4, 2:3, 5:8] = True
    mask[7, 9, 0] = True
    ((read,), affine) = (found := read_masks(write(tmp_path / "m.nii.gz", mask)))[0], found[1]
    boxes = boxes_of_mask(read, affine)
    # x falls with the index: 100 − 2·3 … 100 − 2·1, and so does y
    assert boxes == [((94, 54, -15), (98, 54, -5)), ((86, 33, -40), (86, 33, -40))]


@pytest.mark.parametrize("axis", [0, 3])
def test_masks_lie_at_either_end_of_four_dimensions(tmp_path: Path, axis: int) -> None:
    masks = np.random.default_rng(0).random((2, 10, 12, 8)) > 0.5
    path = write(tmp_path / "m.nii.gz", np.moveaxis(masks, 0, axis))
    for read, mask in zip(read_masks(path)[0], masks, strict=True):
        np.testing.assert_array_equal(read, mask)


def test_corners_that_touch_are_one_piece() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert len(boxes_of_mask(mask, np.eye(4))) == 1
    assert boxes_of_mask(np.zeros((4, 4, 4), bool), np.eye(4)) == []


def test_what_is_no_mask_is_refused_by_name(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.nii.gz", np.ones((6, 6, 6))).read_bytes()
    bad = {"text.nii.gz": b"no mask", "empty.nii.gz": b"", "cut.nii.gz": whole[: len(whole) // 2]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    write(tmp_path / "flat.nii.gz", np.ones((6, 6)))
    for name in (*bad, "flat.nii.gz", "absent.nii.gz"):
        with pytest.raises(CtscribeError, match=rf"{name} must be a NIfTI mask.*\[E_MASK\]"):
            read_masks(tmp_path / name)
