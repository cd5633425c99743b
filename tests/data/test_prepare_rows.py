import hashlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.files import read_json
from ctscribe.base.rows import StudyRow, read_rows
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import read_frames
from ctscribe.scan.stores import read_normalised
from ctscribe.scan.volume import CTVolume
from tests.data.tree import NAMES, SLICES, VOLUME, hashes


def test_rows_are_complete_and_in_order(tree: CtRateTree, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    summary = prepare(
        tree.root, out, VOLUME, SLICES, progress=lambda done, total: seen.append((done, total))
    )
    studies = read_rows(out / "studies.jsonl", StudyRow)
    assert [study.volume_name for study in studies] == NAMES
    assert seen == [(done, 4) for done in range(5)]
    assert (summary.num_prepared, summary.num_skipped, summary.num_reused) == (4, 0, 0)
    third = studies[2]
    assert third.findings == "Findings of train_1."
    assert third.impression == ""
    assert third.labels == (1,) * 18
    assert (third.patient_id, third.scan_id, third.source_split) == (
        "train_10",
        "train_10_a",
        "train",
    )
    assert (third.manufacturer, third.sex, third.age_years) == ("PNMS", "F", 61.0)
    assert third.shape_xyz == (64, 56, 40)
    assert len(third.slice_indices) == len(third.position_mm) == 4
    for index, mm in zip(third.slice_indices, third.position_mm, strict=True):
        assert mm == pytest.approx(702.0 + 8 * index)
    assert read_frames(out, third.volume_name).shape == (4, 56, 84, 3)
    assert read_normalised(out, "train_10_a_1").shape == (40, 64, 56)
    assert read_json(out / "prepare.json")["result"]["num_prepared"] == 4


def test_slices_only_gives_the_same_frames(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "all", VOLUME, SLICES)
    prepare(tree.root, tmp_path / "slices", VOLUME, SLICES, keep="slices")
    few, many = hashes(tmp_path / "slices"), hashes(tmp_path / "all")
    assert not (tmp_path / "slices/preprocessed").exists()
    assert few.items() <= many.items()
    assert len(few) == 3 + 2 * 4
    assert len(many) == 3 + 5 * 4


def test_v1_gives_the_same_frames_as_v2(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "v2", VOLUME, SLICES, keep="slices")
    for name in NAMES:
        fixed = tree.volume_path(name, "v2")
        raw = np.asarray(nib.load(fixed).dataobj) + np.int16(1024)
        path = tree.volume_path(name, "v1")
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(raw, None), path)
        fixed.unlink()
    prepare(tree.root, tmp_path / "v1", VOLUME, SLICES, keep="slices")
    for name in NAMES:
        np.testing.assert_array_equal(
            read_frames(tmp_path / "v1", name), read_frames(tmp_path / "v2", name)
        )


def test_the_grid_is_written_beside_the_array(tree: CtRateTree, tmp_path: Path) -> None:
    prepare(tree.root, tmp_path / "out", VOLUME, SLICES)
    for sidecar in ("slices/train_1_a_1.json", "preprocessed_npy/train_1_a_1.json"):
        told = read_json(tmp_path / "out" / sidecar)
        assert "half-pixel (align_corners=False)" in told["grid"]
        assert told["antialias"] is False
        source = tree.volume_path(NAMES[0], "v2")
        assert told["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        assert len(told["request"]) == 64


def test_disagreeing_affines_need_a_decision(tree: CtRateTree, tmp_path: Path) -> None:
    path = tree.volume_path(NAMES[0], "v2")
    image = nib.load(path)
    wrong = image.affine.copy()
    wrong[2, 2] = 5.0
    image.set_qform(wrong, code=1)
    image.set_sform(image.affine, code=1)
    nib.save(image, path)
    refused = prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices")
    assert refused.skipped_by_code == {"E_GEOMETRY_CONFLICT": 1}
    depths = []
    for prefer in ("sform", "qform"):
        prepare(tree.root, tmp_path / "out", VOLUME, SLICES, keep="slices", prefer=prefer)
        depths.append(read_rows(tmp_path / "out/studies.jsonl", StudyRow)[0].shape_xyz[2])
    assert depths == [40, 25]


def test_all_reconstructions_on_request(tree: CtRateTree, tmp_path: Path) -> None:
    second = "train_1_a_2.nii.gz"
    first_path = tree.volume_path(NAMES[0], "v2")
    tree.volume_path(second, "v2").write_bytes(first_path.read_bytes())
    for path in (
        tree.metadata_path("train"),
        tree.reports_path("train"),
        tree.labels_path("train"),
    ):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, lines[1].replace(NAMES[0], second)]))
    out = tmp_path / "out"
    assert prepare(tree.root, out, VOLUME, SLICES, keep="slices").num_prepared == 4
    summary = prepare(tree.root, out, VOLUME, SLICES, keep="slices", reconstructions="all")
    assert (summary.num_prepared, summary.num_reused) == (5, 4)
    studies = read_rows(out / "studies.jsonl", StudyRow)
    assert [study.volume_name for study in studies[:2]] == [NAMES[0], second]
    assert studies[0].scan_id == studies[1].scan_id


@pytest.fixture
def manifest(tmp_path: Path, make_chest: Callable[..., CTVolume]) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    chest = make_chest()
    nib.save(nib.Nifti1Image(chest.hu, chest.affine), folder / "a.nii.gz")
    nib.save(nib.Nifti1Image(chest.hu[::-1].copy(), chest.affine), folder / "b.nii")
    path = folder / "scans.csv"
    path.write_text(
        "volume,patient,scan,split,findings,impression,age\n"
        "a.nii.gz,P1,P1 first,train,Heart normal.,Normal.,61\n"
        "b.nii,P2,P2/scan,valid,Effusion.,Effusion.,\n"
        "c.nii,P3,P3,valid,Effusion.,Effusion.,\n"
    )
    return path


def test_own_scans(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = prepare(manifest, out, VOLUME, SLICES)
    assert (summary.num_prepared, summary.skipped_by_code) == (2, {"E_MISSING": 1})
    first, second = read_rows(out / "studies.jsonl", StudyRow)
    assert (first.volume_name, first.scan_id, first.patient_id) == ("P1-first", "P1 first", "P1")
    assert (first.source_split, first.age_years, first.labels) == ("train", 61.0, None)
    assert (second.volume_name, second.source_split) == ("P2-scan", "valid")
    assert read_frames(out, "P2-scan").shape == (4, 56, 84, 3)
    assert read_normalised(out, "P1-first").shape == (40, 64, 56)
    assert prepare(manifest, out, VOLUME, SLICES).num_reused == 2
