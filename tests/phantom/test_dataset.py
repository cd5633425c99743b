from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ctscribe.base.errors import CtscribeError
from ctscribe.base.recipe import PhantomConfig
from ctscribe.base.rows import TruthRow, read_rows
from ctscribe.data.ct_rate import (
    CtRateTree,
    each_report,
    parse_volume_name,
    read_labels,
    read_metadata,
)
from ctscribe.phantom.dataset import write_dataset
from ctscribe.text.findings import FINDINGS
from tests.outputs import hashes

CONFIG = PhantomConfig(
    num_train_patients=3,
    num_valid_patients=2,
    spacing_mm=(5.5, 5.5, 8.0),
    matrix_px=64,
    second_reconstruction=0.5,
    seed=11,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    write_dataset(out, CONFIG)
    return out


def test_tables_and_volumes_name_the_same_studies(dataset: Path) -> None:
    tree = CtRateTree(dataset)
    truth = {row.volume_name: row for row in read_rows(dataset / "truth.jsonl", TruthRow)}
    files = {path.name for path in dataset.rglob("*.nii.gz")}
    assert files == set(truth)
    named: set[str] = set()
    for split in ("train", "valid"):
        metadata, reports, labels = (
            read_metadata(tree.metadata_path(split)),
            dict(each_report(tree.reports_path(split))),
            read_labels(tree.labels_path(split)),
        )
        assert set(metadata) == set(reports) == set(labels)
        named |= set(metadata)
        for name, cells in labels.items():
            present = {finding for finding in FINDINGS if cells[finding] == "1"}
            assert present == {lesion.finding for lesion in truth[name].lesions}
            for lesion in truth[name].lesions:
                assert lesion.sentence in reports[name]["Findings_EN"]
    assert named == files
    assert len({parse_volume_name(name).patient_id for name in files}) == 5


def test_a_fixed_volume_has_a_true_header(dataset: Path) -> None:
    tree = CtRateTree(dataset)
    for name, cells in read_metadata(tree.metadata_path("train")).items():
        image = nib.load(tree.volume_path(name, "v2"))
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header["sform_code"] > 0
        assert image.header["qform_code"] > 0
        assert image.get_data_dtype() == np.int16
        assert image.header.get_zooms()[2] == pytest.approx(float(cells["ZSpacing"]))
        assert image.shape[2] == int(cells["NumberofSlices"])


def test_both_releases_hold_the_same_hounsfield_units(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, CONFIG.model_copy(update={"flavour": "v1"}))
    old, new = CtRateTree(tmp_path), CtRateTree(dataset)
    intercepts = set()
    for name, cells in read_metadata(old.metadata_path("train")).items():
        raw, fixed = nib.load(old.volume_path(name, "v1")), nib.load(new.volume_path(name, "v2"))
        assert raw.header["sform_code"] == 0
        assert raw.header.get_zooms() == (1.0, 1.0, 1.0)
        intercept = float(cells["RescaleIntercept"])
        intercepts.add(intercept)
        values = np.asarray(raw.dataobj) * float(cells["RescaleSlope"]) + intercept
        np.testing.assert_array_equal(values, np.asarray(fixed.dataobj))
    assert intercepts <= {-1024.0, -8192.0}
    assert read_rows(tmp_path / "truth.jsonl", TruthRow) == read_rows(
        dataset / "truth.jsonl", TruthRow
    )


def test_two_processes_and_an_interruption_give_the_same_bytes(
    dataset: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, CONFIG, progress=stop)
    assert not (tmp_path / "truth.jsonl").exists()
    some = next(tmp_path.rglob("*.nii.gz"))
    before = some.stat().st_mtime_ns
    write_dataset(tmp_path, CONFIG, processes=2)
    assert some.stat().st_mtime_ns == before
    assert hashes(tmp_path) == hashes(dataset)


def test_another_configuration_never_mixes_with_what_is_there(dataset: Path) -> None:
    before = hashes(dataset)
    with pytest.raises(CtscribeError, match="E_EXISTS"):
        write_dataset(dataset, CONFIG.model_copy(update={"seed": 12}))
    assert hashes(dataset) == before


def test_progress_counts_patients(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = CONFIG.model_copy(update={"num_train_patients": 2, "num_valid_patients": 0})
    write_dataset(tmp_path, config, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert dict(each_report(CtRateTree(tmp_path).reports_path("valid"))) == {}
