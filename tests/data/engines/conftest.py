import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare import prepare
from tests.outputs import hashes
from tests.scans import coarse_chest

NUM_SCANS = 12


@pytest.fixture
def doomed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `doomed`, where workers of any engine find it too."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, sys.path)]))
    return importlib.import_module("doomed")


@pytest.fixture(scope="session")
def knobs() -> tuple[VolumeConfig, SlicesConfig]:
    return VolumeConfig(spacing_mm=(6.0, 6.0, 8.0)), SlicesConfig(num_slices=4)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of twelve scans, all different."""
    folder = tmp_path_factory.mktemp("scans")
    chest = coarse_chest()
    rows = ["volume,patient,scan,split,findings,impression"]
    for number in range(NUM_SCANS):
        hu = chest.hu + np.int16(number)
        nib.save(nib.Nifti1Image(hu, chest.affine), folder / f"{number}.nii.gz")
        rows.append(f"{number}.nii.gz,P{number},P{number},train,Heart normal.,Normal.")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    return folder / "scans.csv"


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    scans: Path,
    knobs: tuple[VolumeConfig, SlicesConfig],
) -> dict[str, str]:
    """What preparing them gives in one process, by file."""
    out = tmp_path_factory.mktemp("prepared")
    prepare(scans, out, *knobs)
    return hashes(out)
