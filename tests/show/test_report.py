"""One scan to a page, with the smallest model that there is."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from ctscribe.base.files import read_json, write_json
from ctscribe.base.recipe import read_recipe
from ctscribe.cli.app import app
from ctscribe.learn.model.finding_queries import attach_finding_queries
from ctscribe.scan.volume import CTVolume
from ctscribe.show.report import save_report
from ctscribe.write.draft_check import NOT_CALIBRATED
from ctscribe.write.writer import ReportWriter
from tests.models import tiny_model, write_run
from tests.refusals import refusal
from tests.scans import image_of

KNOBS = ("slices.frame_size_px=[56,84]", "slices.num_slices=4", "volume.spacing_mm=[6,6,8]")


@pytest.fixture(scope="module")
def run(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = read_recipe("tiny", (*KNOBS, "generate.max_new_tokens=24"))
    qwen = tiny_model(tokenizer)
    attach_finding_queries(qwen)
    return write_run(tmp_path_factory.mktemp("run"), recipe, qwen, tokenizer)


def report(scan: CTVolume, run: Path, out: Path) -> dict[str, Path]:
    """Reports on the scan as it is once it was written as NIfTI."""
    nib.save(image_of(scan), out.with_suffix(".nii.gz"))
    return save_report(ReportWriter(run).report(out.with_suffix(".nii.gz")), out)


def test_a_chest_gets_a_draft_with_evidence_for_every_sentence(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    paths = report(make_chest(), run, tmp_path / "report")
    found = json.loads(paths["json"].read_text())
    assert found["status"] == "preliminary"
    assert len(found["sentences"]) == len(found["findings"]) + len(found["impression"])
    page = paths["html"].read_text()
    assert found["self_check"]["unchecked"] == NOT_CALIBRATED
    assert NOT_CALIBRATED in page
    assert page.index("Self-check") < page.index("<h2>Findings")
    marked = page.count("Boilerplate: rests on") + page.count('class="reliance"')
    assert marked == len(found["sentences"]) > 0


def test_a_page_for_mail_has_no_scan(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    nib.save(image_of(make_chest()), tmp_path / "scan.nii.gz")
    sizes = []
    for option in ("--with-volume", "--without-volume"):
        out = tmp_path / option
        words = ["report", tmp_path / "scan.nii.gz", "--run", run, "--out", out, option]
        app(list(map(str, words)), result_action="return_value")
        page = (out / "report.html").read_text()
        assert ("<canvas" in page) == ("data:image" in page) == (option == "--with-volume")
        sizes.append(len(page))
    assert sizes[1] < sizes[0] / 2


def test_a_text_that_runs_into_its_limit_is_marked(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    writer = ReportWriter(run).with_overrides(("generate.max_new_tokens=3",))
    draft = writer.write(make_chest())
    paths = save_report(draft, tmp_path / "report")
    found = json.loads(paths["json"].read_text())
    assert found["finished"] is False
    assert "cut" in {remark["kind"] for remark in found["self_check"]["remarks"]}
    assert "CUT SHORT" in paths["txt"].read_text().splitlines()[0]
    assert "not verified, cut short" in paths["html"].read_text()


def test_another_scans_draft_is_not_replaced_and_the_same_scans_is(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    chest, out = make_chest(), tmp_path / "report"
    paths = report(chest, run, out)
    before = {suffix: path.read_bytes() for suffix, path in paths.items()}
    other = CTVolume(np.ascontiguousarray(chest.hu[::-1]), chest.affine)
    nothing = CTVolume(np.full_like(chest.hu, -1000), chest.affine)
    few = CTVolume(chest.hu[:, :, :2], chest.affine)
    for scan in (other, nothing, few):
        with refusal("E_EXISTS", "hold a draft of this scan"):
            report(scan, run, out)
    assert {suffix: path.read_bytes() for suffix, path in paths.items()} == before
    paths["html"].unlink()  # as a kill between two files leaves it
    report(chest, run, out)
    assert paths["html"].exists()
    paths["json"].unlink()
    with refusal("E_EXISTS", "hold a draft of this scan"):
        report(chest, run, out)


@pytest.mark.parametrize("kind", ["noise", "no lungs", "blank"])
def test_what_is_no_chest_gets_a_reason_instead(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume], kind: str
) -> None:
    chest = make_chest()
    hu = {
        "noise": np.random.default_rng(0).normal(0, 500, chest.hu.shape),
        "no lungs": np.where(chest.hu > -200, 40, -1000),
        "blank": np.full(chest.hu.shape, -1000),
    }[kind]
    if kind == "no lungs":
        hu[8:-8, 12:-12] = 40
    paths = report(CTVolume(hu.astype(np.int16), chest.affine), run, tmp_path / "report")
    found = json.loads(paths["json"].read_text())
    assert found["status"] == "not assessable"
    assert found["not_assessable"]
    assert found["findings"] == found["impression"] == []
    assert paths["txt"].read_text().startswith("NOT ASSESSABLE.")
    assert "Not assessable: " in paths["html"].read_text()


def test_slabs_are_drawn_beside_their_slices(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    manifest = read_json(run / "run.json")
    manifest["asked"]["recipe"]["slices"] |= {"projection": "slab", "windows": "three"}
    slabs = tmp_path / "run"
    slabs.mkdir()
    (slabs / "best").symlink_to(run / "best")
    write_json(slabs / "run.json", manifest)
    paths = report(make_chest(), slabs, tmp_path / "out")
    found = json.loads(paths["json"].read_text())
    assert all(5 <= place["slab_mm"] <= 30 for place in found["slices"])
    for sentence in found["sentences"]:
        for shown in sentence["slices"]:
            place = found["slices"][shown["number"] - 1]
            assert shown["slice_index"] == place["slice_index"]
            assert shown["position_mm"] == place["position_mm"]
    page = paths["html"].read_text()
    title = r"<h3>maximum of slabs of [0-9]+( to [0-9]+)? mm, lung −600/1500 HU</h3>"
    assert re.search(title, page)
    plain = report(make_chest(), run, tmp_path / "plain")["html"].read_text()
    assert not re.search(title, plain)


def test_a_budget_makes_the_pages_pixels_larger_and_keeps_its_millimetres(
    run: Path, tmp_path: Path, make_chest: Callable[..., CTVolume]
) -> None:
    manifest = read_json(run / "run.json")
    manifest["asked"]["recipe"]["slices"]["token_budget"] = 4
    few = tmp_path / "run"
    few.mkdir()
    (few / "best").symlink_to(run / "best")
    write_json(few / "run.json", manifest)
    full, coarse = (
        json.loads(report(make_chest(), each, tmp_path / name)["json"].read_text())["geometry"]
        for name, each in (("full", run), ("coarse", few))
    )
    assert coarse["Source"] == full["Source"]
    spacing, shape = (
        np.array([grids["As read"][key] for grids in (full, coarse)], dtype=float)
        for key in ("spacing_mm", "shape_xyz")
    )
    np.testing.assert_allclose(spacing[0] * shape[0], spacing[1] * shape[1])
    assert spacing[1, 0] > 1.4 * spacing[0, 0]
    assert spacing[1, 2] == pytest.approx(spacing[0, 2])
