"""What is prepared."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.data.ct_rate import CtRateTree
from tests.data.tree import NAMES, write_tables
from tests.scans import coarse_chest


@pytest.fixture
def tree(tmp_path: Path) -> CtRateTree:
    tree = CtRateTree(tmp_path / "data")
    chest = coarse_chest()
    for number, name in enumerate(NAMES):
        affine = np.diag([-6.0, -6.0, 8.0, 1.0])
        affine[:3, 3] = (150.0, 120.0, 700.0 + number)
        path = tree.volume_path(name, "v2")
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(chest.hu, affine), path)
    for split in ("train", "valid"):
        write_tables(tree, split)
    return tree
