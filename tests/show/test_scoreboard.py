"""The page of an experiment, which run it shows, and which studies stand on it."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from matplotlib.figure import Figure

from ctscribe.base.errors import CtscribeError
from ctscribe.base.figures import image_bytes
from ctscribe.base.files import write_json
from ctscribe.base.grid import grid
from ctscribe.base.recipe import Recipe, SlicesConfig
from ctscribe.base.rows import StudyRow, write_rows
from ctscribe.data.prepared import Prepared
from ctscribe.experiment import compare_cells
from ctscribe.learn.train.run_log import MetricsRow
from ctscribe.measure.scores import evaluate
from ctscribe.show.marked_reports import compare_reports
from ctscribe.show.page import DrawnSlices
from ctscribe.show.score_figures import CaptionedFigure
from ctscribe.show.scoreboard import (
    MAX_SIDE_PX,
    ShownStudy,
    StudyGroup,
    scoreboard_page,
    show_study,
    write_scoreboard,
)
from ctscribe.show.tables import Table, Value
from tests.studies import prediction, study_row, write_prepared

RECIPE = Recipe.model_validate(
    {"experiment": {"betas": (0.0, 0.1)}, "evaluate": {"resamples": 100}}
)
NORMAL = "The lungs are clear and the heart is of normal size."
NODULE = "There is a nodule of 7 mm in the right upper lobe."


def study(patient: str, findings: str, scan: str = "a") -> StudyRow:
    shape = {"spacing_mm": (0.75, 0.5, 1.5), "shape_xyz": (56, 56, 40)}
    name, texts = f"{patient}_{scan}_1.nii.gz", {"findings": findings, "impression": ""}
    return study_row(name, slice_indices=(35, 25), **shape, **texts)


TEST, TRAIN = (
    [study(f"{split}_{number}", NODULE if number < 2 else NORMAL) for number in range(4)]
    for split in ("valid", "train")
)


def metrics_row(step: int) -> MetricsRow:
    unknown = dict.fromkeys(("negative_ce", "gap", "share_capped", "share_skipped"))
    known = {"step": step, "epoch": 0.0, "learning_rate": 0.1, "grad_norm": 1.0, "positive_ce": 2.0}
    return MetricsRow.model_validate(known | unknown)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    frames = [np.full((2, 28, 28, 3), 40 * number, dtype=np.uint8) for number in (0, 1, 2, 3)]
    prepared = write_prepared(tmp_path / "prepared", [*TRAIN, *TEST], RECIPE, frames=frames * 2)
    for number, cell in enumerate(grid(RECIPE)):
        folder = tmp_path / "cells" / cell.name
        written = [prediction(row, f"Emphysema is seen by {cell.variant}.") for row in TEST]
        write_rows(folder / "predictions.jsonl", written)
        write_json(folder / "scores.json", evaluate(written, TEST, TRAIN, RECIPE.evaluate))
        write_json(folder / "gap.json", {"value": 0.1, "low": 0.0, "high": 0.2})
        write_json(folder / "train" / "result.json", {"best_validation_loss": 3.0 - number})
        write_rows(folder / "train" / "metrics.jsonl", [metrics_row(step) for step in (1, 2)])
    folders = {cell: tmp_path / "cells" / cell.name for cell in grid(RECIPE)}
    found = compare_cells(prepared, RECIPE, folders)
    write_json(tmp_path / "comparison.json", found)
    return tmp_path


def test_the_page_shows_the_run_that_validation_selects(out: Path) -> None:
    path = write_scoreboard(out, Prepared(out / "prepared"), RECIPE)
    page = path.read_text(encoding="utf-8")
    assert path == out / "scoreboard.html"
    assert "heter-beta0.1-seed0, the run with the lowest validation loss" in page
    assert "Emphysema is seen by heter." in page
    assert "Emphysema is seen by gauss." not in page
    assert page.index("Table 1.") < page.index("Table 2.") < page.index("Table 3.")
    assert page.index("Table 3.") < page.index("Look-alike reports")
    assert page.index("Look-alike reports") < page.index("The 4 worst studies")
    assert page.count('<figure class="plot">') == 1 + 1 + 1 + 3 + 3
    assert "Research use only" in page


def test_an_unfinished_cell_is_told(out: Path) -> None:
    (out / "cells" / "gauss-beta0.1-seed0" / "scores.json").unlink()
    with pytest.raises(CtscribeError, match="E_MISSING"):
        write_scoreboard(out, Prepared(out / "prepared"), RECIPE)


def page(reference: str = "Emphysema is seen.", study: str = "valid_1_a_1") -> str:
    table = Table(
        "Table 1", ("System", "Coverage"), (("Origin", Value(0.6, 0.5, 0.7, "†")), ("x", "–")),
        ("n < 5",), (1,),
    )  # fmt: skip
    shown = ShownStudy(
        compare_reports(study, reference=reference, prediction="Pleural effusion.", labels=None),
        DrawnSlices(
            {"lung −600/1500": np.zeros((2, 8, 8), dtype=np.uint8)},
            (5, 3),
            (10.0, -2.0),
            (1.5, 1.5),
        ),
    )
    png = image_bytes(Figure(figsize=(1, 1)), "png")
    figure = CaptionedFigure("A curve.", png, png + b"dark")
    groups = (
        StudyGroup("Alike", "As like as two peas.", (shown,)),
        StudyGroup("The worst study", "Lowest F1.", (shown,)),
    )
    return scoreboard_page("Board", ("one fact",), (table,), (figure,), groups)


def test_tables_plots_and_studies_are_there() -> None:
    text = page()
    assert "0.600<sup>†</sup><small>[0.500, 0.700]</small>" in text
    assert '<tr class="rule">' in text
    assert "n &lt; 5" in text
    assert 'src="data:image/png;base64,iVBOR' in text
    (dark,) = re.findall(r'<source srcset="([^"]+)" media="\(prefers-color-scheme: dark\)">', text)
    assert base64.b64decode(dark.removeprefix("data:image/png;base64,")).endswith(b"dark")
    assert '<mark class="missing">Emphysema is seen. <small>missing: Emphysema</small>' in text
    assert '<mark class="wrong">Pleural effusion. <small>wrong: Pleural effusion</small>' in text
    assert text.count("<image ") == 4
    assert text.index("<h2>Alike</h2>") < text.index("<h2>The worst study</h2>")
    assert "As like as two peas." in text


def test_ids_stay_unique_with_several_studies() -> None:
    text = page()
    for name in ("study-1", "study-1-1", "study-1-2", "study-2", "study-2-2"):
        assert text.count(f'id="{name}"') == 1
        assert text.count(f'href="#{name}"') >= 1


def test_reports_and_names_are_escaped() -> None:
    hostile = "<script>alert(1)</script> Emphysema is seen."
    text = page(hostile, hostile)
    assert "<script" not in text
    # in the contents, over the studies and in their references
    assert text.count("&lt;script&gt;alert(1)") == 6


def test_the_contents_lead_to_every_part() -> None:
    text = page()
    (contents,) = re.findall(r'<nav class="contents".*?</nav>', text, flags=re.DOTALL)
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', contents)
    assert links == [
        ("table-1", "Table 1"),
        ("figures", "Figures"),
        ("group-1", "Alike"),
        ("study-1", "valid_1_a_1"),
        ("group-2", "The worst study"),
        ("study-2", "valid_1_a_1"),
    ]
    assert all(text.count(f' id="{anchor}"') == 1 for anchor, _ in links)


def test_each_study_has_its_own_choice_of_window() -> None:
    text = page()
    for study in ("study-1", "study-2"):
        assert f'name="{study}-window" id="{study}-window-1" class="pick-1" checked>' in text
        assert f'<label for="{study}-window-1">lung −600/1500 HU</label>' in text


def show_in(browser: str, page_path: Path, width_px: int) -> dict[str, int]:
    """Widths in px of the page's content and of its window, in a frame so wide."""
    held = html.escape(page_path.read_text(encoding="utf-8"))
    outer = page_path.with_suffix(".outer.html")
    outer.write_text(
        f"""<!DOCTYPE html><iframe width="{width_px}" height="800" srcdoc="{held}"></iframe>
        <p id="told"></p><script>
        document.querySelector("iframe").onload = event => {{
            const page = event.target.contentDocument, root = page.documentElement;
            const boxes = [...page.querySelectorAll("body *")];
            const scrolls = boxes.filter(box => box.scrollWidth > box.clientWidth + 1
                && ["auto", "scroll"].includes(getComputedStyle(box).overflowX));
            document.querySelector("#told").textContent = JSON.stringify(
                {{content: root.scrollWidth, window: root.clientWidth, boxes: scrolls.length}});
        }};</script>""",
        encoding="utf-8",
    )
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000")
    call = [browser, *flags, "--dump-dom", outer.as_uri()]
    shown = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True).stdout
    (told,) = re.findall(r'<p id="told">(\{.*?\})</p>', shown)
    widths: dict[str, int] = json.loads(told)
    return widths


@pytest.mark.parametrize("width_px", [320, 400, 1400])
def test_nothing_scrolls_sideways(width_px: int, out: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path = write_scoreboard(out, Prepared(out / "prepared"), RECIPE)
    widths = show_in(browser, path, width_px)
    assert widths["content"] <= widths["window"]
    assert widths["boxes"] == 0


@pytest.mark.parametrize("windows", ["single", "three"])
def test_large_frames_are_drawn_smaller_and_stay_to_scale(
    windows: Literal["single", "three"], tmp_path: Path
) -> None:
    frame_to_ras = tuple(map(tuple, np.diag([-0.75, -0.5, 3.0, 1.0]).tolist()))
    row = study("valid_1", NORMAL).model_copy(update={"frame_to_ras": frame_to_ras})
    frames = np.zeros((2, 504, 504, 3), dtype=np.uint8)
    frames[0, :2, :2] = (100, 160, 200)
    recipe = Recipe(slices=SlicesConfig(windows=windows))
    prepared = write_prepared(tmp_path, [row], recipe, frames=[frames])
    compared = compare_reports("x", reference=NORMAL, prediction="", labels=None)
    shown = show_study(compared, row, prepared).slices
    assert shown is not None
    lung, soft_tissue = shown.images.values()
    assert list(shown.images) == ["lung −600/1500", "soft tissue 40/400"]
    assert lung.shape == (2, 252, 252)
    assert max(lung.shape[1:]) <= MAX_SIDE_PX
    assert shown.pixel_spacing_mm == (1.5, 1.0)
    # grey 100 of the wide window is −216 HU, which is grey 193 of the lung window and soft
    # tissue's black; three windows hold soft tissue themselves
    assert lung[0, 0, 0] == 193
    assert lung[0, 9, 9] == 60  # air
    assert soft_tissue[0, 0, 0] == (0 if windows == "single" else 160)


def test_slabs_are_named_where_a_window_is_drawn_from_them(tmp_path: Path) -> None:
    frames = np.zeros((2, 28, 28, 3), dtype=np.uint8)
    recipe = Recipe(slices=SlicesConfig(windows="three", projection="slab"))
    row = study("valid_1", NORMAL)
    prepared = write_prepared(tmp_path, [row], recipe, frames=[frames])
    compared = compare_reports("x", reference=NORMAL, prediction="", labels=None)
    shown = show_study(compared, row, prepared).slices
    assert shown is not None
    assert list(shown.images) == ["maximum of slabs, lung −600/1500", "soft tissue 40/400"]
