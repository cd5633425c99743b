"""Altered volumes on disk."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from isal import igzip

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import Recipe
from ctscribe.base.rows import StudyRow
from ctscribe.base.types import Affine, VolumeHu
from ctscribe.learn.pairs.build import noise_seeds
from ctscribe.measure.card_files import write_altered
from ctscribe.measure.card_views import VIEWS, draw_dropped, draw_order
from ctscribe.scan.intensity import AIR_HU
from ctscribe.scan.stores import nifti_header
from tests.studies import write_prepared

SHAPE = (12, 10, 24)


def affine(number: int) -> Affine:
    matrix = np.diag([3.0, 3.0, 3.0, 1.0])
    matrix[:3, 3] = (5.0, -7.0, float(number))
    return matrix


@pytest.fixture
def volumes(tmp_path: Path, studies: list[StudyRow], recipe: Recipe) -> list[VolumeHu]:
    """A prepared folder with small volumes; returned are their voxels."""
    draw = np.random.default_rng(0)
    made = []
    for number, study in enumerate(studies):
        hu = draw.integers(-1000, 400, SHAPE).astype(np.int16)
        path = tmp_path / "prepared" / "preprocessed" / study.volume_name
        path.parent.mkdir(parents=True, exist_ok=True)
        with igzip.open(path, "wb") as file:
            file.write(nifti_header(SHAPE, affine(number)))
            file.write(np.ascontiguousarray(hu.T).data)
        made.append(hu)
    write_prepared(tmp_path / "prepared", studies, recipe)
    return made


def test_every_view_is_what_it_says(
    volumes: list[VolumeHu], studies: list[StudyRow], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    number = write_altered(
        tmp_path / "prepared", "test", 0.1, out, progress=lambda *at: told.append(at)
    )
    assert number == 4
    assert told[-1] == (24, 24)
    for own, study in zip(volumes, studies, strict=True):
        name, seed = study.volume_name, noise_seeds([study.volume_name], seed=0)[0]
        images = {view: nib.load(out / view / name) for view in VIEWS}
        shown = {view: np.asarray(image.dataobj) for view, image in images.items()}
        assert np.array_equal(shown["real"], own)
        assert np.array_equal(shown["shuffled"], own[:, :, draw_order(24, seed)])
        gone = draw_dropped(24, 0.5, seed)
        assert (shown["dropped"][:, :, gone] == AIR_HU).all()
        assert np.array_equal(shown["dropped"][:, :, ~gone], own[:, :, ~gone])
        assert any(np.array_equal(shown["other_patient"], hu) for hu in volumes)
        assert not np.array_equal(shown["other_patient"], own)
        assert (shown["blank"] == AIR_HU).all()
        noise = shown["noise"]
        # About a third of a standard normal lies beyond one standard deviation.
        assert 0.25 < (abs(noise) == 1000).mean() < 0.4
        for view in ("noise", "blank", "shuffled", "dropped"):
            assert np.array_equal(images[view].affine, images["real"].affine)


def test_files_that_are_there_stay_and_other_scans_are_refused(
    volumes: list[VolumeHu], studies: list[StudyRow], recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_altered(tmp_path / "prepared", "test", 0.1, out)
    kept = out / "noise" / studies[0].volume_name
    before = kept.stat().st_mtime_ns
    (out / "blank" / studies[0].volume_name).unlink()
    write_altered(tmp_path / "prepared", "test", 0.1, out)
    assert kept.stat().st_mtime_ns == before
    assert (out / "blank" / studies[0].volume_name).exists()
    write_prepared(tmp_path / "prepared", studies[:3], recipe)
    with pytest.raises(CtscribeError, match="E_RUN_EXISTS"):
        write_altered(tmp_path / "prepared", "test", 0.1, out)


def test_volumes_that_were_not_kept_are_asked_for(
    studies: list[StudyRow], prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(CtscribeError, match=r"--keep all.*E_MISSING"):
        write_altered(prepared, "test", 0.1, tmp_path)
