"""A small NIfTI file."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="module")
def image() -> nib.Nifti1Image:
    rng = np.random.default_rng(0)
    values = rng.integers(-1024, 2000, (12, 10, 8), dtype=np.int16)
    made = nib.Nifti1Image(values, np.diag([-0.7, -0.7, 2.0, 1.0]))
    made.header.set_xyzt_units("mm")
    made.set_qform(made.affine, code=1)
    made.set_sform(made.affine, code=1)
    return made


@pytest.fixture(scope="module")
def plain(image: nib.Nifti1Image) -> bytes:
    return bytes(image.to_bytes())
