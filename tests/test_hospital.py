"""The commands of the page for hospitals run as they stand on an export of three patients."""

import csv
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from ctscribe.base.recipe import read_recipe
from ctscribe.base.rows import DraftRow, StudyRow, read_rows
from tests.exports import PLANTED, write_export
from tests.models import tiny_model, write_run
from tests.test_readme import block, run

PAGE = "docs/hospital.md"
DRAFTING = (
    "ctscribe report scans.csv --run work/run --out drafts\n",
    "ctscribe report scans.csv --run work/run --out drafts-to-send",
)


@pytest.mark.slow
def test_from_an_export_to_drafts(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    knobs = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "volume.spacing_mm=[6,6,8]")
    recipe = read_recipe("tiny", (*knobs, "generate.max_new_tokens=8"))
    write_run(tmp_path / "work/run", recipe, tiny_model(tokenizer), tokenizer)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    write_export(tmp_path / "export")
    for first in ("ctscribe worklist", *DRAFTING, "ctscribe prepare"):
        commands = block(PAGE, first).replace("--recipe ctscribe", "--recipe own.yaml")
        told = run(tmp_path, commands)
        assert [word for word in PLANTED if word in told] == []
    with (tmp_path / "scans.csv").open(newline="") as file:
        scans = {row["scan"] for row in csv.DictReader(file)}
    assert len(scans) == 3
    assert {
        row.scan_id for row in read_rows(tmp_path / "work/prepared/studies.jsonl", StudyRow)
    } == scans
    documents = {"report.dcm", "report.fhir.json"}
    for folder in ("drafts", "drafts-to-send", "drafts-of-prepared"):
        rows = read_rows(tmp_path / folder / "drafts.jsonl", DraftRow)
        assert {row.scan_id: row.status for row in rows} == dict.fromkeys(scans, "written")
        written = b"".join(p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file())
        assert [word for word in PLANTED if word.encode() in written] == []
        assert all(
            (documents <= set(row.documents)) == (folder == "drafts-to-send") for row in rows
        )
