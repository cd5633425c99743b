"""The commands of the pages run as they stand, one after the other, in an empty folder.

Only what cannot be had here is put in its place: phantoms for CT-RATE and for own scans, a small
model for the published one, and in each recipe fewer slices, smaller frames, shorter reports and
fewer patients to hold them against.
"""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file
from transformers import AutoTokenizer

from benchmarks.bench_ct_rate import PAGE, RECIPE, costs, page_with, rows_of
from ctscribe.base.files import read_json
from ctscribe.base.recipe import read_recipe
from ctscribe.base.rows import PredictionRow, SkippedRow, StudyRow, read_rows
from ctscribe.data.prepared import Prepared
from ctscribe.learn.model.checkpoint import save_model
from ctscribe.scan.read import read_volume
from tests.dicom import write_series
from tests.encoders import encode_prepared, frame_grid, random_encoder
from tests.models import tiny_model

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT.parent / "shared" / "data" / "qwen2.5-vl-7b-instruct"
STAGES = ("prepare", "features", "pairs", "train", "tune", "generate", "evaluate", "card")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
PHANTOM = (
    "ctscribe phantom {out} --processes 2 --set phantom.num_train_patients=8"
    " --set phantom.num_valid_patients=2 --set phantom.matrix_px=64"
    " --set phantom.spacing_mm=[6,6,8] --set phantom.flavour={flavour}"
)


def block(page: str, first: str) -> str:
    """The block of commands of a page that begins so."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[str] = BLOCK.findall(text)
    return next(each for each in found if each.startswith(first))


def run(folder: Path, commands: str) -> str:
    """Runs lines of shell in a folder, each of which must end well; what they say on stderr."""
    binaries = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def here(commands: str, data: Path) -> str:
    """The same commands on what there is."""
    for name in ("qwen2.5-vl-7b", "paper_heter", "ctscribe"):
        recipe = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
        recipe.setdefault("slices", {}).update(num_slices=4, frame_size_px=[224, 224])
        recipe.setdefault("generate", {}).update(max_new_tokens=16, num_negatives=2)
        (data / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        commands = commands.replace(f"--recipe {name}", f"--recipe {data / name}.yaml")
    for there, put in {
        "/data/CT-RATE": str(data / "CT-RATE"),
        "/models/Qwen2.5-VL-7B-Instruct": str(data / "published"),
        "/models/colipri.safetensors": str(data / "encoder"),
        "/scans/series-folder": str(data / "series"),
    }.items():
        commands = commands.replace(there, put)
    return commands


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms in both of CT-RATE's releases, and one of their scans as a DICOM series."""
    folder = tmp_path_factory.mktemp("data")
    run(folder, PHANTOM.format(out="CT-RATE", flavour="v2"))
    run(folder, PHANTOM.format(out="v1", flavour="v1"))
    scan = sorted((folder / "CT-RATE").rglob("valid_1*.nii.gz"))[0]
    write_series(folder / "series", volume=read_volume(scan, study="v", intensity="hu")[0])
    write_published(folder / "published")
    return folder


def write_published(folder: Path) -> None:
    """A small random model of the published class, with the published tokenizer if it is here."""
    if not TOKENIZER.is_dir():
        folder.symlink_to(ROOT / "starts" / "tiny")
        return
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    save_model(folder, tiny_model(tokenizer), tokenizer)


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands for CT-RATE have run."""
    folder = tmp_path_factory.mktemp("ct-rate")
    run(folder, here(block("docs/ct_rate.md", "ctscribe prepare"), data))
    return folder / "work"


def test_the_readme_gives_the_same_commands_as_the_page_on_ct_rate() -> None:
    start = "ctscribe prepare"
    assert block("docs/ct_rate.md", start).startswith(block("README.md", start))


def test_the_costs_on_the_page_are_those_that_are_computed() -> None:
    rows = rows_of(read_recipe(RECIPE))
    assert [row[0] for row in rows] == [f"`{name}`" for name in STAGES]
    assert page_with(costs(rows)) == PAGE.read_text(encoding="utf-8")


@pytest.mark.long
def test_ct_rate_from_scans_to_scores_and_weights_for_others(work: Path) -> None:
    written = read_rows(work / "heter/run/predictions_test.jsonl", PredictionRow)
    scores = read_json(work / "heter/run/scores.json")
    assert {row.patient_id for row in written} == {"valid_1", "valid_2"}
    assert scores["missing"] == []
    assert set(scores["model"]) >= {"bleu_4", "rouge_l", "coverage", "label_accuracy"}
    assert (work.parent / "served/config.json").is_file()
    assert read_json(work / "heter/run/card_test/card.json")["views"]
    assert len(read_json(work / "heter/run/tuned.json")["tries"]) > 1
    assert not (work / "prepared/preprocessed").exists()
    stored = [path.name for path in (work / "prepared/features").rglob("*.safetensors")]
    studies = read_rows(work / "prepared/studies.jsonl", StudyRow)
    assert all(any(name.startswith(row.volume_name[:-7]) for name in stored) for row in studies)


@pytest.mark.long
def test_one_draft_from_a_dicom_series(work: Path, data: Path) -> None:
    run(work.parent, here(block("docs/own_scans.md", "ctscribe report"), data))
    page = next((work.parent / "draft").rglob("report.html")).read_text(encoding="utf-8")
    assert "Research use only" in page


@pytest.mark.long
def test_features_of_another_encoder_from_tables_to_a_card(work: Path, data: Path) -> None:
    page = (ROOT / "docs/encoders.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    prepared, folder = Prepared(work / "prepared"), work / "colipri"
    folder.mkdir()
    encoded = (
        (name, features, np.array(frame_grid(prepared.by_name[name], side_px=56)))
        for name, features in encode_prepared(prepared, random_encoder(side_px=56)).items()
    )
    exec(snippet, {"encoded": encoded, "folder": folder, "json": json, "save_file": save_file})
    (data / "encoder").write_bytes(b"weights")
    run(work.parent, here(block("docs/encoders.md", "ctscribe import-features"), data))
    written = read_rows(work / "encoder/run/predictions_test.jsonl", PredictionRow)
    assert {row.patient_id for row in written} == {"valid_1", "valid_2"}
    card = read_json(work / "encoder/run/card_test/card.json")
    assert [*card["views"]] == ["real", "other_patient"]


@pytest.mark.slow
def test_release_1_is_prepared_to_the_same_grid(data: Path, tmp_path: Path) -> None:
    command = here(block("README.md", "ctscribe prepare").partition("\n")[0], data)
    shapes = []
    for release in ("v1", "CT-RATE"):
        (tmp_path / release).mkdir()
        run(tmp_path / release, command.replace(str(data / "CT-RATE"), str(data / release)))
        rows = read_rows(tmp_path / release / "work/prepared/studies.jsonl", StudyRow)
        shapes.append({row.volume_name: row.shape_xyz for row in rows})
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_a_list_of_own_scans_is_examined_and_prepared(data: Path, tmp_path: Path) -> None:
    scan = sorted((data / "CT-RATE").rglob("train_1*.nii.gz"))[0]
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct/0001.nii.gz").write_bytes(scan.read_bytes())
    (data / "series").rename(tmp_path / "ct/series-0002")
    listed = re.search(
        r"```\n(volume,patient.*?)```", (ROOT / "docs/own_scans.md").read_text(), re.S
    )
    assert listed is not None
    (tmp_path / "scans.csv").write_text(listed[1], encoding="utf-8")
    commands = block("docs/own_scans.md", "ctscribe doctor").strip()
    run(tmp_path, here(commands, data))
    (tmp_path / "ct/series-0002").rename(data / "series")
    rows = read_rows(tmp_path / "work/prepared/studies.jsonl", StudyRow)
    assert read_rows(tmp_path / "work/prepared/skipped.jsonl", SkippedRow) == []
    expected = {
        line["patient"]: line["findings"] for line in csv.DictReader(listed[1].splitlines())
    }
    assert {row.patient_id: row.findings for row in rows} == expected
