import tracemalloc
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset

from ctscribe.base.recipe import ModelConfig, SlicesConfig, VolumeConfig
from ctscribe.base.rows import FEATURE_TABLES, FeatureTableRow, write_rows
from ctscribe.base.tables import format_csv
from ctscribe.cli.app import app
from ctscribe.data.ct_rate import CtRateTree
from ctscribe.data.doctor import describe, examine
from ctscribe.data.prepare import prepare
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.features import store_features
from ctscribe.learn.model.presets import build_config
from tests.data.tree import row, write_tables, write_tree
from tests.dicom import write_series
from tests.models import tiny_model, tiny_tokenizer
from tests.refusals import refusal
from tests.scans import coarse_chest

VOLUME = VolumeConfig(spacing_mm=(6.0, 6.0, 8.0))
SLICES = SlicesConfig(num_slices=4)
MODEL = ModelConfig(dtype="float32")
NAMES = [f"train_{patient}_a_1.nii.gz" for patient in range(1, 7)]


@pytest.fixture
def tree(tmp_path: Path) -> CtRateTree:
    return write_tree(tmp_path / "data", NAMES)


def test_problems_by_code_with_examples(tree: CtRateTree) -> None:
    for name in NAMES[:4]:
        tree.volume_path(name, "v2").write_bytes(b"<html>sign in</html>")
    slab = nib.Nifti1Image(coarse_chest().hu[:, :, :10], np.eye(4) * 6)
    nib.save(slab, tree.volume_path(NAMES[4], "v2"))
    found = examine(tree.root, VOLUME, SLICES, MODEL)
    assert found.num_volumes == 1
    assert {code: problem.count for code, problem in found.problems.items()} == {
        "E_NOT_MEDICAL": 4,
        "E_TOO_FEW_SLICES": 1,
    }
    examples = found.problems["E_NOT_MEDICAL"].examples
    assert len(examples) == 3
    assert examples[0].startswith(f"{NAMES[0]} must be a NIfTI file, but it is a web page")
    assert found.warnings["W_SPACING"].examples == (NAMES[5],)
    assert found.num_failing == 5


def test_the_command_prints_and_fails_while_there_are_problems(
    tree: CtRateTree, capsys: pytest.CaptureFixture[str]
) -> None:
    app(
        ["doctor", str(tree.root), "--recipe", "tiny", "--processes", "1"],
        result_action="return_value",
    )
    assert "6 volumes can be prepared" in capsys.readouterr().out
    tree.volume_path(NAMES[0], "v2").write_bytes(b"<html>sign in</html>")
    tree.no_chest_path("train").write_text(f"{NAMES[1]}\n")
    with refusal("E_UNHEALTHY", "but 1 have problems"):
        app(
            ["doctor", str(tree.root), "--recipe", "tiny", "--processes", "1"],
            result_action="return_value",
        )
    told = capsys.readouterr().out
    assert "4 volumes can be prepared" in told
    assert "problem E_NOT_MEDICAL, 1 times, for example" in told
    assert f"  {NAMES[0]} must be a NIfTI file, but it is a web page" in told
    assert "problem E_NO_CHEST, 1 times" in told
    assert "--keep slices" in told
    assert "--keep all" in told


def test_nothing_is_changed_and_processes_agree(tree: CtRateTree) -> None:
    before = sorted(tree.root.rglob("*"))
    assert examine(tree.root, VOLUME, SLICES, MODEL) == examine(
        tree.root, VOLUME, SLICES, MODEL, processes=2
    )
    assert sorted(tree.root.rglob("*")) == before


@pytest.mark.parametrize("keep", ["slices", "all"])
def test_disk_is_what_prepare_takes(tree: CtRateTree, tmp_path: Path, keep: str) -> None:
    need = examine(tree.root, VOLUME, SLICES, MODEL).need[keep]
    out = tmp_path / "out"
    prepare(tree.root, out, VOLUME, SLICES, keep=keep)  # type: ignore[arg-type]
    taken = sum(path.stat().st_size for path in out.rglob("*") if path.suffix in (".npy", ".gz"))
    assert taken == pytest.approx(need.disk_bytes, rel=0.15)
    assert need.memory_bytes > 100e6
    assert need.cpu_hours > 0


@pytest.mark.parametrize("merged", [True, False])
def test_features_are_counted_as_they_are_stored(
    tree: CtRateTree, tmp_path: Path, merged: bool
) -> None:
    model = ModelConfig(dtype="float32", freeze_merger=merged)
    found = examine(tree.root, VOLUME, SLICES, model)
    assert f"features besides {found.features_bytes / 1e6:>6.0f} MB" in describe(found)
    prepare(tree.root, tmp_path, VOLUME, SLICES, keep="slices")
    prepared = Prepared(tmp_path)
    qwen = tiny_model(tiny_tokenizer())
    folder = store_features(qwen, prepared, prepared.studies, merged=merged).folder
    stored = sum(path.stat().st_size for path in folder.iterdir())
    assert stored == pytest.approx(found.features_bytes, rel=0.05)


def test_nothing_is_stored_of_a_tower_that_learns(tree: CtRateTree) -> None:
    found = examine(tree.root, VOLUME, SLICES, ModelConfig(freeze_tower=False))
    assert found.features_bytes == 0
    assert "features" not in describe(found)


def test_an_encoders_tables_are_counted(tree: CtRateTree, tmp_path: Path) -> None:
    model, tables = MODEL.model_copy(update={"encoder": "e"}), tmp_path / "tables"
    assert examine(tree.root, VOLUME, SLICES, model).features_bytes == 0
    place = {"grid": (1, 1, 2), "plane_mm": (0.0,)}
    rows = [
        FeatureTableRow.model_validate({"volume_name": name, "file": f"{name}.npy", **place})
        for name in NAMES
    ]
    tables.mkdir()
    write_rows(tables / FEATURE_TABLES, rows)
    with refusal("E_ENCODER", "train_1_a_1.nii.gz.npy must hold features of train_1"):
        examine(tree.root, VOLUME, SLICES, model, tables=tables)
    for each in rows:
        (tables / each.file).write_bytes(b"x" * 500)
    found = examine(tree.root, VOLUME, SLICES, model, tables=tables)
    assert found.features_bytes == 500 * len(NAMES)
    with refusal("E_OPTION", "--tables must go with model.encoder"):
        examine(tree.root, VOLUME, SLICES, MODEL, tables=tables)


def test_every_preset_has_its_features_size(tree: CtRateTree) -> None:
    tokenizer = tiny_tokenizer()
    tokens = examine(tree.root, VOLUME, SLICES, MODEL).features_bytes / (4 * 128)
    for preset in get_args(ModelConfig.model_fields["preset"].annotation):
        config = build_config(preset, tokenizer)
        levels = 1 + len(getattr(config.vision_config, "deepstack_visual_indexes", ()))
        for merged, width in {
            True: levels * config.text_config.hidden_size,
            False: levels * 4 * config.vision_config.hidden_size,
        }.items():
            model = ModelConfig(preset=preset, freeze_merger=merged)
            found = examine(tree.root, VOLUME, SLICES, model)
            assert found.features_bytes == tokens * 2 * width


def test_series_left_aside_and_tilts_are_told(tmp_path: Path) -> None:
    def lean(image: FileDataset, z: int) -> None:
        image.ImagePositionPatient[1] += z
        image.SeriesNumber = 7

    write_series(tmp_path / "a", lean)
    write_series(tmp_path / "a", series="1.2.9", slices=range(0, 24, 2))
    (tmp_path / "scans.csv").write_text("volume,patient,scan,report\na,P1,S1,Clear.\n")
    found = examine(tmp_path / "scans.csv", VOLUME, SLICES, MODEL)
    assert found.warnings["W_TILT"].examples == ("S1: 11.31 degrees",)
    assert found.warnings["W_OTHER_SERIES"].examples == (
        "S1: Read was series 7 (24 axial slices of 5 mm). "
        "Left aside: series 4 (12 axial slices of 5 mm).",
    )


def test_a_series_may_be_asked_for(tmp_path: Path) -> None:
    def numbered(image: FileDataset, z: int) -> None:
        image.SeriesNumber = 7

    write_series(tmp_path / "a", numbered)
    write_series(tmp_path / "a", series="1.2.9", slices=range(22))
    manifest = tmp_path / "scans.csv"
    manifest.write_text("volume,patient,scan,report\na,P1,S1,Clear.\n")
    found = examine(manifest, VOLUME, SLICES, MODEL, series="4")
    assert found.warnings["W_OTHER_SERIES"].examples[0].startswith("S1: Read was series 4 (22")
    assert [*examine(manifest, VOLUME, SLICES, MODEL, series="5").problems] == ["E_SERIES"]
    manifest.write_text("volume,patient,scan,report,series\na,P1,S1,Clear.,7\n")
    found = examine(manifest, VOLUME, SLICES, MODEL, series="4")
    assert found.warnings["W_OTHER_SERIES"].examples[0].startswith("S1: Read was series 7 (24")


@pytest.mark.parametrize("shape", ["tree", "manifest"])
def test_no_report_is_held_and_missing_volumes_are_counted(shape: str, tmp_path: Path) -> None:
    names = [f"train_{patient}_a_1.nii.gz" for patient in range(1, 501)]
    rows = [row(name) | {"Findings_EN": "The lungs are clear. " * 500} for name in names]
    write_tables(CtRateTree(tmp_path), "train", rows)
    manifest, texts = tmp_path / "scans.csv", CtRateTree(tmp_path).reports_path("train")
    cells = [
        (name, name, name, each["Findings_EN"]) for name, each in zip(names, rows, strict=True)
    ]
    manifest.write_text(format_csv([("volume", "patient", "scan", "report"), *cells]), "utf-8")
    source = tmp_path if shape == "tree" else manifest
    examine(source, VOLUME, SLICES, MODEL)  # what is loaded once is not counted
    tracemalloc.start()
    found = examine(source, VOLUME, SLICES, MODEL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {code: problem.count for code, problem in found.problems.items()} == {"E_MISSING": 500}
    assert len(found.problems["E_MISSING"].examples) == 3
    assert peak < texts.stat().st_size / 4
