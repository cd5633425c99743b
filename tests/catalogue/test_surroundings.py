"""Row 54: where and how a process runs changes no output."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from tests.dicom import write_series
from tests.outputs import hashes
from tests.scans import image_of

SCRIPT = """
import locale, os, sys, threading, time
from pathlib import Path
os.umask(int(sys.argv[3], 8))
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
from ctscribe.base.recipe import SlicesConfig, VolumeConfig
from ctscribe.data.prepare import prepare
summary = prepare(Path(sys.argv[1]), Path(sys.argv[2]), VolumeConfig(spacing_mm=(2.0, 2.0, 5.0)),
                  SlicesConfig(num_slices=4, frame_size_px=(56, 84)))
assert summary.num_prepared == 2, summary
"""


@pytest.fixture(scope="module")
def own_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    nib.save(image_of(), folder / "a.nii.gz")
    write_series(folder / "b")
    (folder / "scans.csv").write_text(
        "volume,patient,scan,report,age\na.nii.gz,P1,A,Clear.,61.5\nb,P2,İıB,Effusion.,7\n"
    )
    return folder / "scans.csv"


def prepared(manifest: Path, out: Path, umask: str = "022", **surroundings: str) -> dict[str, str]:
    """Hashes of what a run in these surroundings writes."""
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(manifest), str(out), umask],
        env={**os.environ, **surroundings},
        check=True,
    )
    return hashes(out)


def test_locale_time_zone_and_umask_change_nothing(own_scans: Path, tmp_path: Path) -> None:
    plain = prepared(own_scans, tmp_path / "plain", LC_ALL="C", TZ="UTC", PYTHONHASHSEED="0")
    assert len(plain) == 2 * 5 + 3
    turkish = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kolkata"}
    odd = prepared(own_scans, tmp_path / "odd", umask="077", PYTHONHASHSEED="7", **turkish)
    assert odd == plain
