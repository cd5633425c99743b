"""Cards side by side as tables, a figure and a page."""

from pathlib import Path
from typing import Any

from ctscribe.measure.card_compare import compare_cards
from ctscribe.measure.scans import Answers
from ctscribe.show.cards import cards_figure, cards_tables, write_cards
from ctscribe.show.tables import to_markdown
from tests.measure.test_card_compare import SYSTEMS
from tests.measure.test_card_scores import CONFIG, TRUTH


def compared(**changes: dict[str, Answers]) -> dict[str, Any]:
    return compare_cards(SYSTEMS | changes, TRUTH, CONFIG)


def test_systems_are_rows_and_the_verdict_stands_beside_its_number() -> None:
    verdicts, views = map(to_markdown, cards_tables(compared()))
    row = next(line for line in verdicts.splitlines() if line.startswith("| constant"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:5] == ["not shown to look", "0.000 [0.000, 0.000]", "Gaussian noise", "–"]
    assert "| perfect" in verdicts
    assert "48 scans of 48 patients" in verdicts
    assert "Voxels moved" in views


def test_a_view_that_one_system_was_not_shown_is_a_dash() -> None:
    fewer = {view: each for view, each in SYSTEMS["half"].items() if view != "moved"}
    comparison = compared(fewer=fewer)
    verdicts, views = map(to_markdown, cards_tables(comparison))
    assert "looks, but not all views were shown" in verdicts
    row = next(line for line in views.splitlines() if line.startswith("| fewer"))
    assert row.count("–") == 1
    (axes,) = cards_figure(comparison).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert "Voxels moved" in labels
    assert "The scan itself" not in labels


def test_all_forms_are_written(tmp_path: Path) -> None:
    paths = {path.suffix: path for path in write_cards(tmp_path, compared())}
    assert {*paths} == {".md", ".tex", ".html", ".png"}
    assert r"\toprule" in paths[".tex"].read_text()
    page = paths[".html"].read_text()
    assert "data:image/png;base64," in page
    assert "not shown to look" in page
    assert paths[".png"].read_bytes().startswith(b"\x89PNG")
